import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import {
  assertMigrated,
  migrationStatus,
  pendingMigrations,
  runMigrations,
  verifySchema,
} from '../../../src/index.ts';
import { type CliResult, runCli } from './command-line.ts';

/** The result of a function of the package, or its error. */
export type Answer =
  | { readonly value: unknown }
  | { readonly code: string; readonly message: string; readonly [field: string]: unknown };

const FUNCTIONS = { runMigrations, pendingMigrations, migrationStatus, verifySchema, assertMigrated };

export type Answers = Readonly<Record<keyof typeof FUNCTIONS, Answer>>;

/** Short waits: the faults in these tests do not go away. */
const environmentOf = (url: string) => ({
  DATABASE_URL: url,
  FILESTORE_MIGRATION_CONNECT_WAIT_MS: '0',
  FILESTORE_MIGRATION_LOCK_WAIT_MS: '0',
});

/** Calls each function of this package on a database, one after the other. */
export async function askFunctions(url: string): Promise<Answers> {
  const answers: Record<string, Answer> = {};
  for (const [name, ask] of Object.entries(FUNCTIONS)) {
    answers[name] = await ask({ env: environmentOf(url) }).then(
      (value): Answer => ({ value }),
      (error): Answer => ({ ...error, code: error.code, message: error.message }),
    );
  }
  return answers as Answers;
}

/** The same with a copy of the package, in a separate process. */
export async function askFunctionsOf(folder: string, url: string): Promise<Answers> {
  const script = `
    const filestore = await import('./src/index.js');
    const answers = {};
    for (const name of ${JSON.stringify(Object.keys(FUNCTIONS))}) {
      answers[name] = await filestore[name]().then(
        (value) => ({ value }),
        (error) => ({ ...error, code: error.code, message: error.message }),
      );
    }
    console.log(JSON.stringify(answers));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: folder,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...environmentOf(url) },
  });
  return JSON.parse(stdout);
}

export interface CommandOptions {
  /** The folder of the package whose command line is run. Default: this one. */
  readonly folder?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs the command line against a database. */
export function command(args: readonly string[], url: string, options: CommandOptions = {}) {
  const { folder, env } = options;
  return runCli(args, {
    env: { ...environmentOf(url), ...env },
    ...(folder !== undefined && { folder }),
  });
}

export interface JsonResult extends CliResult {
  /** Without `variable`, which is the same in each. */
  readonly document: Readonly<Record<string, unknown>>;
  readonly variable: unknown;
}

/** The same with `--json`: stdout must be exactly one document. */
export async function jsonCommand(
  args: readonly string[],
  url: string,
  options: CommandOptions = {},
): Promise<JsonResult> {
  const result = await command([...args, '--json'], url, options);
  const { variable, ...document } = JSON.parse(result.stdout);
  return { ...result, document, variable };
}
