import type pg from 'pg';
import { CURRENT, isEmpty, isSource, type Sources } from '../../sources/sources.ts';
import { type DatabaseSubject, type Gate, judge } from '../gate.ts';
import { applyAll } from '../run-statements.ts';
import { applyAgain } from './repeatable.ts';

export interface CurrentSubject {
  readonly sources: Sources;
  /** Connections to two databases with the committed migrations, without and with rows. Both get current.sql. */
  readonly empty: pg.Client;
  readonly populated: pg.Client;
}

export const currentApplies: Gate<CurrentSubject> = {
  name: 'current',
  proves:
    'current.sql applies with and without rows in the tables, changes no setting of the session, and a second time changes nothing',
  async evaluate({ sources, empty, populated }) {
    const { pending, current } = sources;
    if (!isSource(pending)) return judge(pending === null ? [] : [pending]);
    if (isEmpty(current)) {
      const remedy = 'Write the migration in this file, or leave out --current.';
      return judge([{ file: CURRENT, line: null, what: 'has no migration to check', remedy }]);
    }
    const failures = await applyAll(empty, [pending]);
    if (failures.length > 0) return judge(failures);
    const withRows = await applyAll(populated, [pending]);
    if (withRows.length > 0) {
      return judge(
        withRows.map((problem) => ({ ...problem, what: `with rows in the tables, ${problem.what}` })),
      );
    }
    return judge(await applyAgain(populated, sources, [pending]));
  },
};

/** Needs an empty database, and migrates it. */
export const applies: Gate<DatabaseSubject> = {
  name: 'applies',
  proves: 'the committed migrations apply to an empty database, and change no setting of the session',
  evaluate: async ({ sources, client }) => judge(await applyAll(client, sources.committed)),
};
