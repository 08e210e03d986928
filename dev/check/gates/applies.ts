import { type Gate, judge } from '../gate.ts';
import { applyAll } from '../run-statements.ts';
import type { DatabaseSubject } from '../subject.ts';

/** Needs an empty database, and migrates it. */
export const applies: Gate<DatabaseSubject> = {
  name: 'applies',
  proves: 'the committed migrations apply to an empty database',
  evaluate: async ({ sources, client }) => judge(await applyAll(client, sources.committed)),
};
