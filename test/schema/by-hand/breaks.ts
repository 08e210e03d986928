import { BREAKS_OF_GUARDS } from './breaks-of-guards.ts';
import { BREAKS_OF_HISTORY, BREAKS_OF_THE_JOURNAL } from './breaks-of-history.ts';
import { BREAKS_OF_NODES, type Break } from './breaks-of-nodes.ts';
import { BREAKS_OF_MOUNTS, BREAKS_OF_RECORDS, BREAKS_OF_TOTALS } from './breaks-of-records.ts';

/** Every way in which the tests break a promise of docs/schema.md by hand. */
export const BREAKS: readonly Break[] = [
  ...BREAKS_OF_NODES,
  ...BREAKS_OF_HISTORY,
  ...BREAKS_OF_THE_JOURNAL,
  ...BREAKS_OF_TOTALS,
  ...BREAKS_OF_MOUNTS,
  ...BREAKS_OF_RECORDS,
  ...BREAKS_OF_GUARDS,
];
