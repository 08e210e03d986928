import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';

export interface CommandOptions {
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** Interrupts the command and all its processes, like Ctrl-C. */
  readonly signal: AbortSignal;
  /** Whether the output is shown while the command runs. Default: it is only in the error of a failure. */
  readonly shown?: boolean;
}

/** How long processes may take to end after an interrupt, before they are killed. */
const PATIENCE_MS = 20_000;

/**
 * Runs a command to its end, and returns what it printed.
 * @throws {Error} with all that it printed when its exit code is not 0.
 * @throws the signal's reason if it is interrupted.
 */
export async function runCommand(
  [program = '', ...args]: readonly string[],
  { cwd, env, signal, shown = false }: CommandOptions,
): Promise<string> {
  signal.throwIfAborted();
  const stdio = shown ? 'inherit' : 'pipe';
  // In its own process group: the terminal's Ctrl-C reaches this process only, which passes it on once.
  const child = spawn(program, args, { cwd, env, detached: true, stdio: ['ignore', stdio, stdio] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const exit = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
  const closed = new Promise((resolve) => child.once('close', resolve));
  const interrupt = () => endGroup(child);
  signal.addEventListener('abort', interrupt, { once: true });
  try {
    const exitCode = await exit;
    // A failed or killed command may leave processes that keep its output open.
    await endGroup(child);
    await closed;
    signal.throwIfAborted();
    if (exitCode === 0) return output;
    const command = [program, ...args].join(' ');
    throw new Error(
      `"${command}" failed with exit code ${exitCode}${shown ? '.' : `:\n${output.trimEnd()}`}`,
    );
  } finally {
    signal.removeEventListener('abort', interrupt);
  }
}

/** Interrupts the processes of a command, waits for them, and kills those that have not ended. */
async function endGroup(child: ChildProcess): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  signalGroup(child, 'SIGINT');
  while (signalGroup(child, 0)) {
    if (Date.now() > deadline) {
      signalGroup(child, 'SIGKILL');
      return;
    }
    await delay(50);
  }
}

/** @returns whether the group has a process. */
function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals | 0): boolean {
  if (pid === undefined) return false;
  try {
    process.kill(-pid, signal);
    return true;
  } catch {
    return false;
  }
}
