import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { COMPARISONS } from './comparisons.ts';
import type { Context } from './context.ts';
import { DESIGNS } from './designs/read-designs.ts';

const DEFAULTS = { rounds: '5', seconds: '10', nodes: '1000000' } as const;
/** Small enough for a report within a quarter of an hour. */
const DESIGNS_DEFAULTS = { rounds: '3', seconds: '1', nodes: '100000' } as const;

/** The unguarded twin comes with this schema. */
const DESIGN_KEYS = DESIGNS.map(({ key }) => key).filter((key) => key !== 'twin');

const NAME_WIDTH = Math.max(...Object.keys(COMPARISONS).map(({ length }) => length)) + 2;

export const HELP = `Usage: npm run bench -- [options]

Measures the upkeep of the schema, and the runner against other programs, side by side in alternating rounds. "designs"
also has what the guards cost, against a twin: a table with the same columns, rows and indexes, but without keys, checks,
domains and triggers. Every ratio is the median of the rounds' ratios. A line without a target is for information.

  --only <name,…>     which of the measurements below (all but "versions" and "designs")
  --rounds <n>        rounds of each comparison (5; designs: 3)
  --seconds <n>       length of one measurement under load, after a second that is not counted (10; designs: 1)
  --against <folder>  root of another checkout, for "versions"; without --only, only that is measured
  --nodes <n>         size of the tree of "growth" and "scan", versions of "prune" (1000000), nodes of
                      "designs" (100000)
  --designs <key,…>   of "designs": ${DESIGN_KEYS} (all)
  --output <folder>   of "designs": where report.md, its plots and report.json are written (bench-report)
  --previous <file>   of "designs": report.json of an earlier run, whose rankings are compared
  --help

${Object.entries(COMPARISONS).map(describe).join('\n')}

DATABASE_URL       a server to use, by a role that may create databases; default: a separate one for this run
TEST_POSTGRES      system: that of the system's programs (TEST_POSTGRES_BIN: their folder), not the embedded one

Run it on a machine that does nothing else. The exit code is 0 also when a target is missed.`;

function describe([name, { help }]: readonly [string, (typeof COMPARISONS)[string]]): string {
  return help.map((line, index) => `  ${(index === 0 ? name : '').padEnd(NAME_WIDTH)}${line}`).join('\n');
}

/** What the command line asks for. */
export interface Options extends Omit<Context, 'server' | 'load' | 'report' | 'environment'> {
  readonly names: readonly string[];
}

/** Reads the command line; throws when an option is not valid, also beside --help. */
export function readOptions(args: readonly string[]): Options | 'help' {
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
      ? Object.keys(COMPARISONS).filter((name) => !COMPARISONS[name]?.isOnDemand)
      : ['versions'];
  const names = values.only?.split(',') ?? all;
  const unknown = names.find((name) => !Object.hasOwn(COMPARISONS, name));
  if (unknown !== undefined)
    throw new Error(
      `--only: "${unknown}" does not exist. Choose from ${Object.keys(COMPARISONS).join(', ')}.`,
    );
  if (names.includes('versions') && against === undefined) {
    throw new Error('versions needs another checkout. Give its folder: --against <folder>.');
  }
  if (names.includes('designs') && names.length > 1) {
    throw new Error('designs writes a report about one run. Measure it with --only designs.');
  }
  const keys = values.designs.split(',');
  const noDesign = keys.find((key) => !DESIGN_KEYS.includes(key));
  if (noDesign !== undefined)
    throw new Error(`--designs: "${noDesign}" does not exist. Choose from ${DESIGN_KEYS.join(', ')}.`);
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
  return values.help ? 'help' : options;
}

function wholeNumber(option: string, text: string, least: number): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least) {
    throw new Error(`${option} must be a whole number of at least ${least}, not "${text}"`);
  }
  return value;
}
