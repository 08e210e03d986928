import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { serverAccount } from '../src/testing/embedded/account.ts';

/** A data directory whose server is stopped. */
export interface StoppedServer {
  readonly binaries: string;
  /** A folder that the account of servers can write to. */
  readonly folder: string;
  readonly data: string;
  readonly database: string;
}

/** Statements of one session, each in one line for `postgres --single`. */
export interface Session {
  /** Statements that run first, such as `prepare`. */
  readonly setup: readonly string[];
  /** The statements of call number n, from 1. */
  readonly call: (n: number) => readonly string[];
  /** An SQL expression that is true if so many calls did their work. */
  readonly worked?: (calls: number) => string;
}

/** Long before that many calls, catalog caches are full and generic plans are chosen (from the sixth execution on). */
const WARM_UP = 50;
const CALLS = 200;

export function hasValgrind(): boolean {
  return spawnSync('valgrind', ['--version']).status === 0;
}

/**
 * Counts the instructions of one call in a warm session: those of a session with more calls, minus one with fewer, each on
 * a fresh copy of the data. Start and shutdown cancel out, and the count does not depend on time or load.
 */
export async function countInstructions(server: StoppedServer, session: Session): Promise<number> {
  const sessions = [
    runSession(server, 'short', session, WARM_UP),
    runSession(server, 'long', session, WARM_UP + CALLS),
  ] as const;
  // Waits for both, even when one fails, since their files are reused.
  await Promise.allSettled(sessions);
  const [short, long] = await Promise.all(sessions);
  return Math.round((long - short) / CALLS);
}

async function runSession(
  { binaries, folder, data, database }: StoppedServer,
  name: string,
  { setup, call, worked }: Session,
  calls: number,
): Promise<number> {
  const copy = join(folder, `data-${name}`);
  const counts = join(folder, `counts-${name}`);
  const lines = join(folder, `statements-${name}`);
  const statements = [
    ...setup,
    ...Array.from({ length: calls }, (_, index) => call(index + 1)).flat(),
    ...(worked === undefined ? [] : [`do $$ begin assert ${worked(calls)}, 'the calls did nothing'; end $$`]),
  ];
  writeFileSync(lines, statements.map((text) => `${text.replaceAll(/\s+/g, ' ').trim()}\n`).join(''));
  try {
    await run(folder, 'cp', ['-Rp', data, copy]);
    const postgres = [join(binaries, 'postgres'), '--single', '-F', '-D', copy, '-c', 'jit=off', database];
    const valgrind = ['--tool=callgrind', '--trace-children=no', `--callgrind-out-file=${counts}`];
    const output = await run(folder, 'valgrind', [...valgrind, ...postgres], lines);
    const error = /(?:ERROR|FATAL|PANIC): .*(?:\n.*STATEMENT: .*)?/.exec(output)?.[0];
    if (error !== undefined) throw new Error(error);
    const total = /^totals: (\d+)$/m.exec(readFileSync(counts, 'utf8'))?.[1];
    if (total === undefined) throw new Error(`callgrind wrote no total into ${counts}`);
    return Number(total);
  } finally {
    for (const path of [copy, counts, lines]) rmSync(path, { recursive: true, force: true });
  }
}

const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Runs a program as the account of servers, with a file as its input, and returns its stderr. */
async function run(
  folder: string,
  program: string,
  args: readonly string[],
  input = '/dev/null',
): Promise<string> {
  const stdin = openSync(input, 'r');
  const child = spawn(program, args, {
    ...serverAccount(),
    // Valgrind needs a home and a current folder that it can read.
    cwd: folder,
    env: { PATH: process.env.PATH, HOME: folder, TMPDIR: folder, LC_ALL: 'C', TZ: 'UTC' },
    stdio: [stdin, 'ignore', 'pipe'],
  });
  closeSync(stdin);
  running.add(child);
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
  });
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    const said = stderr.replaceAll(/^==\d+==.*\n?/gm, '').trim();
    if (code !== 0) throw new Error(`${program} ended with ${code}: ${said.slice(-1_000)}`);
    return said;
  } finally {
    running.delete(child);
  }
}
