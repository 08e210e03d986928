import { type ChildProcess, spawn } from 'node:child_process';
import { packageFolder, startOf } from '../../../harness/compiled.ts';

export interface CliResult {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Both, in the order in which a person sees them. */
  readonly output: string;
}

export interface CliOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** The folder of the package whose command line is run. Default: this one. */
  readonly folder?: string;
  /** Default: the package's folder. */
  readonly cwd?: string;
}

/** Starts the development command line, which has all commands, as a process with a minimal environment. */
export function startCli(args: readonly string[], options: CliOptions = {}): ChildProcess {
  const folder = options.folder ?? packageFolder();
  return spawn(process.execPath, [...startOf(folder, 'dev', 'cli'), ...args], {
    cwd: options.cwd ?? folder,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Runs the command line to its end. */
export function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  return collect(startCli(args, options));
}

/** Waits for a process to end, and collects its output. */
export async function collect(child: ChildProcess): Promise<CliResult> {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk;
  });
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
  });
  const exitCode = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  return { exitCode, stdout, stderr, output: stdout + stderr };
}
