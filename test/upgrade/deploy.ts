import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PackedService } from '../support/packages/installed-package.ts';

/** A time in which the database was changed. Milliseconds since 1970. */
export interface Change {
  /** The file of a migration, or the SQL of the owner. */
  readonly name: string;
  readonly fromMs: number;
  readonly toMs: number;
  /** Whether it may hold a strong lock while it works: not while it builds an index concurrently, nor in batches. */
  readonly locks: boolean;
}

export interface CommandResult {
  readonly exitCode: number | null;
  readonly output: string;
  /** Lines of stdout. */
  readonly lines: readonly string[];
}

/** Runs the packed command line, as a deploy does. */
export async function runPacked(
  { packageFolder }: PackedService,
  args: readonly string[],
  databaseUrl: string,
  signal: AbortSignal,
): Promise<CommandResult> {
  signal.throwIfAborted();
  const child = spawn(process.execPath, ['dist/cli.js', ...args], {
    cwd: packageFolder,
    // A Ctrl-C on the terminal must not reach it before this process.
    detached: true,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, FILESTORE_MIGRATION_DATABASE_URL: databaseUrl },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    output += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const interrupt = () => child.kill('SIGTERM');
  signal.addEventListener('abort', interrupt, { once: true });
  const exitCode = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  signal.removeEventListener('abort', interrupt);
  signal.throwIfAborted();
  return { exitCode, output, lines: stdout.trimEnd().split('\n') };
}

/** What is read of an event. */
interface Line {
  readonly type: string;
  readonly atMs: number;
  readonly filename?: string;
}

/** Events that begin or end an attempt of a migration. */
const LIMITS: readonly string[] = ['migration-start', 'migration-end', 'retry', 'result'];

/** Each attempt of each migration, from the lines of `migrate --events`. */
export function changesOf(lines: readonly string[], { packageFolder }: PackedService): readonly Change[] {
  const locks = (filename: string) =>
    !/^--! no-transaction$/m.test(
      readFileSync(join(packageFolder, 'migrations', 'committed', filename), 'utf8'),
    );
  const limits = lines.map((line): Line => JSON.parse(line)).filter(({ type }) => LIMITS.includes(type));
  return limits.flatMap(({ type, filename, atMs }, index) => {
    if (type !== 'migration-start' || filename === undefined) return [];
    const toMs = limits[index + 1]?.atMs ?? atMs;
    return [{ name: filename, fromMs: atMs, toMs, locks: locks(filename) }];
  });
}
