import type { Comparison } from './context.ts';
import { compareDesigns } from './designs/measure-designs.ts';
import { growth } from './growth.ts';
import { importing } from './import.ts';
import { instructions } from './instructions.ts';
import { lockWaits } from './lock-waits.ts';
import { preparedForMoves } from './prepared-for-moves.ts';
import { prune } from './prune.ts';
import { runner } from './runner.ts';
import { measureScans } from './scans/measure-scans.ts';
import { versions } from './schema-versions.ts';
import { fold, page, totals } from './total-readings.ts';
import { watch } from './watch-latency.ts';

interface Listed {
  readonly measure: Comparison;
  /** Lines of the help. */
  readonly help: readonly string[];
  /** Measured only when it is named: it needs another checkout, or makes a report. */
  readonly isOnDemand?: true;
}

/** What `npm run bench` can measure, by the name that `--only` takes. */
export const COMPARISONS: Readonly<Record<string, Listed>> = {
  fold: { measure: fold, help: ['how fast fold_rollups() is'] },
  totals: {
    measure: totals,
    help: ['directory_totals() with much pending, against adding up what is pending'],
  },
  page: {
    measure: page,
    help: ['list_totals() of 200 directories, against directory_totals() of each and against the view'],
  },
  growth: {
    measure: growth,
    help: [
      'bytes on disk for each node, version, sighting and command; vacuum, reindex, recount and check of',
      'all of them',
    ],
  },
  scan: {
    measure: measureScans,
    help: [
      'scans of a mount: the first one, one with nothing changed, one with 1 % changed and a directory',
      'with 5 % of all nodes renamed, against statements by path and against a table of paths',
    ],
  },
  import: {
    measure: importing,
    help: [
      'import_nodes() with history and journal, against inserting finished rows without triggers and keys',
    ],
  },
  prune: {
    measure: prune,
    help: ['what content writes notice while prune_history() removes --nodes versions, 100 of each file'],
  },
  prepared: {
    measure: preparedForMoves,
    help: [
      'what a server that is prepared for moving mounts writes to its log. "instructions" has what its',
      'writers pay',
    ],
  },
  runner: {
    measure: runner,
    help: ['processes that migrate a database, with nothing and with everything to do (at least 15 rounds)'],
  },
  watch: {
    measure: watch,
    help: [
      "from a save to the change in the database: db:watch against graphile-migrate's watch",
      '(at least 7 rounds)',
    ],
  },
  'lock-waits': {
    measure: lockWaits,
    help: [
      'the longest wait of a writer while a migration alters a table that others use for 80 % of the',
      'time: the runner against a constant lock timeout of 5 s',
    ],
  },
  instructions: {
    measure: instructions,
    help: [
      'how many instructions a statement takes, counted once by valgrind. "other" is the same write to the',
      'twin: its update, its tombstone, or its insert for all other statements. For a part of the insert,',
      '"here" is what it saves without the part, "other" the whole insert',
    ],
  },
  versions: {
    measure: versions,
    help: [
      'the schema here against the committed migrations of --against, in databases of one server:',
      'creates, content writes, commands, a bulk load, totals, folds, heartbeats; moving, deleting,',
      'restoring and purging 20000 nodes',
    ],
    isOnDemand: true,
  },
  designs: {
    measure: compareDesigns,
    help: [
      'this schema against the other designs of bench/designs/alternatives: every operation, and what',
      'goes wrong when connections meet. Only with --only designs',
    ],
    isOnDemand: true,
  },
};
