import { type ChildProcess, fork, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A random number for each call of a statement, `:name` in its text. */
export type Variable =
  | { readonly kind: 'counter' }
  | { readonly kind: 'random'; readonly from: number; readonly to: number };

/** A statement that many connections run at once. `:client_id` is the connection's number. */
export interface Statement {
  readonly text: string;
  readonly variables: Readonly<Record<string, Variable>>;
}

/** A process's part of a load. */
export interface Job extends Statement {
  readonly url: string;
  readonly seconds: number;
  readonly clientIds: readonly number[];
}

/**
 * Runs a prepared statement on several connections, and returns the calls per second.
 * A time before it, {@link WARM_UP_SECONDS}, is not counted.
 */
export type Load = (
  url: string,
  statement: Statement,
  connections: number,
  seconds: number,
) => Promise<number>;

/** New connections compile triggers and plan statements at first, those of a service's pool do not. */
export const WARM_UP_SECONDS = 1;

export interface LoadGenerator {
  readonly name: string;
  readonly run: Load;
}

/** pgbench if it is installed, since it uses the least of the machine; otherwise processes of Node. */
export function findLoadGenerator(): LoadGenerator {
  const { status, stdout } = spawnSync('pgbench', ['--version'], { encoding: 'utf8' });
  return status === 0
    ? { name: stdout.trim(), run: runPgbench }
    : { name: `Node.js ${process.version}`, run: runProcesses };
}

async function runPgbench(
  url: string,
  { text, variables }: Statement,
  connections: number,
  seconds: number,
): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'fs-load-'));
  try {
    const script = join(folder, 'script.sql');
    const lines = Object.entries(variables).map(([name, variable]) =>
      variable.kind === 'counter'
        ? `\\set ${name} :${name} + 1`
        : `\\set ${name} random(${variable.from}, ${variable.to})`,
    );
    writeFileSync(script, [...lines, `${text.replaceAll(/\s+/g, ' ').trim()};`].join('\n'));
    const counters = Object.entries(variables).filter(([, { kind }]) => kind === 'counter');
    const output = await capture('pgbench', [
      ...['--no-vacuum', '--protocol=prepared', `--file=${script}`, '--progress=1'],
      `--time=${WARM_UP_SECONDS + seconds}`,
      ...[`--client=${connections}`, `--jobs=${Math.min(connections, availableParallelism())}`],
      ...counters.map(([name]) => `--define=${name}=0`),
      url,
    ]);
    return rateAfterWarmUp(output);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The rate after the first line of progress: that of the whole time, without what was done before the line. */
function rateAfterWarmUp(output: string): number {
  const found = [
    /^progress: ([\d.]+) s, ([\d.]+) tps/m,
    /^number of transactions actually processed: (\d+)/m,
    /^tps = ([\d.]+) \(without initial/m,
  ].flatMap((line) => (line.exec(output) ?? []).slice(1).map(Number));
  const [seconds, rate, calls, wholeRate] = found;
  // On a machine that is busy with other work, 32 connections may take longer to open than the whole time.
  if (calls === 0) return 0;
  if (seconds === undefined || rate === undefined || calls === undefined || wholeRate === undefined) {
    throw new Error(`pgbench printed no rate:\n${output}`);
  }
  return (calls - rate * seconds) / (calls / wholeRate - seconds);
}

/** What a program writes to its output and its standard error. */
async function capture(program: string, args: readonly string[]): Promise<string> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk;
    });
  }
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`${program} failed:\n${output}`);
  return output;
}

/** The same from several processes of this program, since one is too slow for many connections. */
async function runProcesses(
  url: string,
  statement: Statement,
  connections: number,
  seconds: number,
): Promise<number> {
  const number = Math.min(connections, availableParallelism());
  const shares = Array.from({ length: number }, (_, index) =>
    Array.from({ length: connections }, (__, client) => client).filter((client) => client % number === index),
  );
  const children = shares.map(() => fork(fileURLToPath(new URL('load-worker.ts', import.meta.url))));
  try {
    await Promise.all(
      children.map(async (child, index) => {
        const job: Job = { url, ...statement, seconds, clientIds: shares[index] ?? [] };
        child.send(job);
        await answer(child);
      }),
    );
    const rates = await Promise.all(
      children.map((child) => {
        child.send('go');
        return answer(child);
      }),
    );
    return rates.reduce((sum, rate) => sum + rate, 0);
  } finally {
    for (const child of children) child.kill();
  }
}

async function answer(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    const ended = () => reject(new Error('a load process ended early'));
    child.once('exit', ended);
    child.once('message', (message) => {
      child.off('exit', ended);
      resolve(Number(message));
    });
  });
}
