import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { describeServer, openServer } from './bench-server.ts';
import type { Comparison, Context } from './context.ts';
import { bulk, create, hot } from './create.ts';
import { compareDesigns } from './designs/compare-designs.ts';
import { DESIGNS } from './designs/design-list.ts';
import { growth } from './growth.ts';
import { instructions } from './instructions.ts';
import { findLoadGenerator } from './load.ts';
import { lockWaits } from './lock-waits.ts';
import type { Result } from './measure.ts';
import { preparedForMoves } from './prepared-for-moves.ts';
import { renderEnvironment, renderTable } from './result-tables.ts';
import { runner } from './runner.ts';
import { fold, page, totals } from './total-readings.ts';
import { trees } from './trees.ts';
import { move, update } from './update.ts';
import { versions } from './versions.ts';
import { watch } from './watch-latency.ts';

const COMPARISONS: Readonly<Record<string, Comparison>> = {
  create,
  bulk,
  hot,
  fold,
  totals,
  page,
  update,
  move,
  trees,
  growth,
  prepared: preparedForMoves,
  runner,
  watch,
  'lock-waits': lockWaits,
  instructions,
  versions,
  designs: compareDesigns,
};
/** Measured only when they are named, and alone: one needs another checkout, one makes a report. */
const ON_DEMAND: readonly string[] = ['versions', 'designs'];
const DEFAULTS = { rounds: '5', seconds: '10', nodes: '1000000' } as const;
/** Small enough for a report within a quarter of an hour. */
const DESIGNS_DEFAULTS = { rounds: '3', seconds: '1', nodes: '100000' } as const;

/** The unguarded twin comes with this schema. */
const DESIGN_KEYS = DESIGNS.map(({ key }) => key).filter((key) => key !== 'twin');

const HELP = `Usage: npm run bench -- [options]

What the guards of the schema cost, measured side by side: in each round here and then the twin (or the other way
round), a table with the same columns, rows and indexes, but without keys, checks, domains and triggers. The runner is
compared with other programs. Every ratio is the median of the rounds' ratios. A line without a target is for information.

  --only <name,…>     which of: ${Object.keys(COMPARISONS).join(', ')}
  --rounds <n>        rounds of each comparison (5; designs: 3)
  --seconds <n>       length of one measurement under load, after a second that is not counted (10; designs: 1)
  --against <folder>  root of another checkout, for "versions"; without --only, only that is measured
  --nodes <n>         size of the tree of "trees" and "growth" (1000000), or of "designs" (100000)
  --designs <key,…>   of "designs": ${DESIGN_KEYS} (all)
  --output <folder>   of "designs": where report.md, its plots and report.json are written (bench-report)
  --previous <file>   of "designs": report.json of an earlier run, whose rankings are compared
  --help

  create   a file by a service; "filled": by a loader that gives parent_path and parent_live
  bulk     100000 files in one statement
  hot      creates in one directory against creates spread over a thousand
  fold     how fast fold_rollups() is, and what creates notice of it
  totals   directory_totals() with much pending, against adding up what is pending
  page     list_totals() of 200 directories, against directory_totals() of each and against the view
  update   heartbeats and content writes
  move     a directory with 20000 and with 100000 nodes below it
  trees    check_integrity(), delete_node(), restore_node(), delete_batch(), purge_deleted() of a large tree
  growth   bytes on disk for each node, version, sighting and command; vacuum, reindex, recount and check of all of them
  prepared what a server that is prepared for moving mounts writes to its log. "instructions" has what its writers pay
  runner   processes that migrate a database, with nothing and with everything to do (at least 15 rounds)
  watch    from a save to the change in the database: db:watch against graphile-migrate's watch (at least 7 rounds)
  lock-waits  the longest wait of a writer while a migration alters a table that others use for 80 % of the time: the
           runner against a constant lock timeout of 5 s
  instructions  how many instructions a statement takes, counted once by valgrind. "other" is the insert into the twin.
           For a part of the insert, "here" is what the insert saves without it, and "other" the whole insert
  versions the schema here against the committed migrations of --against, in databases of one server: creates, content
           writes, commands, a bulk load, totals, folds, heartbeats; moving, deleting, restoring and purging 20000 nodes
  designs  this schema against the other designs of bench/designs/alternatives: every operation, and what goes wrong when
           connections meet. Only with --only designs

DATABASE_URL       a server to use, by a role that may create databases; default: a separate one for this run
TEST_POSTGRES      system: that of the system's programs (TEST_POSTGRES_BIN: their folder), not the embedded one

Run it on a machine that does nothing else. The exit code is 0 also when a target is missed.`;

interface Options extends Omit<Context, 'server' | 'load' | 'report' | 'environment'> {
  readonly names: readonly string[];
}

function readOptions(args: readonly string[]): Options | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: 'string' },
      against: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      nodes: { type: 'string' },
      designs: { type: 'string', default: DESIGN_KEYS.join(',') },
      output: { type: 'string', default: 'bench-report' },
      previous: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  const against = values.against === undefined ? undefined : resolve(values.against);
  if (against !== undefined && !existsSync(join(against, 'migrations', 'committed'))) {
    throw new Error(`--against: ${against} has no folder migrations/committed. Name the root of a checkout.`);
  }
  const all =
    against === undefined
      ? Object.keys(COMPARISONS).filter((name) => !ON_DEMAND.includes(name))
      : ['versions'];
  const names = values.only?.split(',') ?? all;
  const unknown = names.find((name) => !Object.hasOwn(COMPARISONS, name));
  if (unknown !== undefined) throw new Error(`--only: "${unknown}" does not exist`);
  if (names.includes('versions') && against === undefined) {
    throw new Error('versions needs another checkout. Give its folder: --against <folder>.');
  }
  if (names.includes('designs') && names.length > 1) {
    throw new Error('designs writes a report about one run. Measure it with --only designs.');
  }
  const keys = values.designs.split(',');
  const noDesign = keys.find((key) => !DESIGN_KEYS.includes(key));
  if (noDesign !== undefined) throw new Error(`--designs: "${noDesign}" does not exist`);
  if (values.previous !== undefined && !existsSync(values.previous)) {
    throw new Error(`--previous: ${values.previous} does not exist. Name the report.json of an earlier run.`);
  }
  const defaults = names.includes('designs') ? DESIGNS_DEFAULTS : DEFAULTS;
  const options: Options = {
    names,
    against,
    rounds: wholeNumber('--rounds', values.rounds ?? defaults.rounds, 1),
    seconds: wholeNumber('--seconds', values.seconds ?? defaults.seconds, 1),
    nodes: wholeNumber('--nodes', values.nodes ?? defaults.nodes, 1_000),
    designs: keys,
    output: resolve(values.output),
    previous: values.previous,
    command: ['npm run bench --', ...args].join(' '),
  };
  // After the others were checked: what does not fit is said in any case.
  return values.help ? 'help' : options;
}

function wholeNumber(option: string, text: string, least: number): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least) {
    throw new Error(`${option} must be a whole number of at least ${least}, not "${text}"`);
  }
  return value;
}

async function run({ names, ...context }: Options): Promise<void> {
  const load = findLoadGenerator();
  const server = await openServer(process.env);
  try {
    const environment = { ...(await describeServer(server)), load: load.name };
    const results: Result[] = [];
    const report = (...found: readonly Result[]) => {
      results.push(...found);
      for (const { what } of found) process.stderr.write(`measured: ${what}\n`);
    };
    try {
      for (const name of names) await COMPARISONS[name]?.({ ...context, server, load, report, environment });
    } finally {
      console.log([renderEnvironment(environment, context), renderTable(results)].join('\n'));
    }
  } finally {
    await server.stop();
  }
}

try {
  const options = readOptions(process.argv.slice(2));
  if (options === 'help') console.log(HELP);
  else await run(options);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
