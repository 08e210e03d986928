import { afterAll, beforeAll, expect } from 'vitest';
import { diverge, drift, forgetLast, putAhead } from '../databases/fleet-databases.ts';
import { createDatabase, databaseForFile, type TestDatabase } from '../databases/test-database.ts';
import { type CliResult, runCli } from './command-line.ts';

const PREPARE = { pending: forgetLast, ahead: putAhead, diverged: diverge, drifted: drift };
type State = keyof typeof PREPARE;

const isState = (name: string): name is State => name in PREPARE;

/** Databases of a test file, one in each state of a fleet. Tests only read them. */
export function fleetForFile() {
  const current = databaseForFile();
  const stateful = new Map<State, TestDatabase>();
  const databaseIn = (state: State) => stateful.get(state) ?? expect.fail(`there is no database ${state}`);

  beforeAll(async () => {
    for (const state of Object.keys(PREPARE).filter(isState)) {
      const database = await createDatabase();
      stateful.set(state, database);
      await PREPARE[state](database);
    }
  });
  afterAll(async () => {
    for (const database of stateful.values()) await database.drop();
  });

  const urlOf = (name: string): string => {
    if (name === 'current') return current().url;
    if (name === 'unreachable') return 'postgres://app@127.0.0.1:1/app';
    return isState(name) ? databaseIn(name).url : expect.fail(`there is no state ${name}`);
  };
  return { current, databaseIn, urlOf };
}

/** Without patience: no wait would fix what these tests break. */
const IMPATIENT = { FILESTORE_MIGRATION_CONNECT_WAIT_MS: '0', FILESTORE_MIGRATION_LOCK_WAIT_MS: '0' };

type Lists = Readonly<Record<string, string>>;

export const listOf = (urls: Lists) =>
  Object.entries(urls)
    .map(([name, url]) => `${name} ${url}`)
    .join('\n');

interface Options {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

export const environmentOf = (urls: Lists, { env }: Options) => ({
  ...IMPATIENT,
  LIST: listOf(urls),
  ...env,
});

export const argumentsOf = (command: string, { args = [] }: Options) => [
  command,
  '--databases',
  'env:LIST',
  ...args,
];

/** Runs a command on databases by name and URL. */
export const runOn = (command: string, urls: Lists, options: Options = {}): Promise<CliResult> =>
  runCli(argumentsOf(command, options), { env: environmentOf(urls, options) });

/** The same with --json. */
export async function documentOn(command: string, urls: Lists, options: Options = {}) {
  const args = [...(options.args ?? []), '--json'];
  const result = await runOn(command, urls, { ...options, args });
  return { ...result, document: JSON.parse(result.stdout) };
}
