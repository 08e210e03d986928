import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Account, identityOf } from '../dev/embedded/account.ts';

/** A data directory whose server is stopped. */
export interface StoppedServer {
  readonly binaries: string;
  readonly account: Account;
  /** A folder that the account can write to. */
  readonly folder: string;
  readonly data: string;
  readonly database: string;
}

/** Statements of one session. Each of them is one line for `postgres --single`. */
export interface Session {
  /** What runs first, such as `prepare`. */
  readonly setup: readonly string[];
  /** The statements of call number n, from 1. */
  readonly call: (n: number) => readonly string[];
  /** An expression that is true when so many calls did their work. */
  readonly worked?: (calls: number) => string;
}

/** Catalog caches are full and generic plans chosen (from the sixth execution on) long before that. */
const WARM_UP = 50;
const CALLS = 200;

export function hasValgrind(): boolean {
  return spawnSync('valgrind', ['--version']).status === 0;
}

/**
 * Counts the instructions of one call in a warm session: a session with more calls, less one with fewer, each on a
 * fresh copy of the data. Start, set-up and shutdown cancel out, so that the count depends on no clock and no load.
 */
export async function countInstructions(server: StoppedServer, session: Session): Promise<number> {
  const sessions = [
    runSession(server, 'short', session, WARM_UP),
    runSession(server, 'long', session, WARM_UP + CALLS),
  ] as const;
  // Both have ended before their files can be used again, also when one of them failed.
  await Promise.allSettled(sessions);
  const [short, long] = await Promise.all(sessions);
  return Math.round((long - short) / CALLS);
}

async function runSession(
  { binaries, account, folder, data, database }: StoppedServer,
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
    await run(account, folder, 'cp', ['-Rp', data, copy]);
    const postgres = [join(binaries, 'postgres'), '--single', '-F', '-D', copy, '-c', 'jit=off', database];
    const valgrind = ['--tool=callgrind', '--trace-children=no', `--callgrind-out-file=${counts}`];
    const output = await run(account, folder, 'valgrind', [...valgrind, ...postgres], lines);
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

/** Runs a program as the account, with a file as its input, and returns what it wrote to stderr. */
async function run(
  account: Account,
  folder: string,
  program: string,
  args: readonly string[],
  input = '/dev/null',
): Promise<string> {
  const stdin = openSync(input, 'r');
  const child = spawn(program, args, {
    ...identityOf(account),
    // Valgrind wants a home and a current folder that it can use.
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
