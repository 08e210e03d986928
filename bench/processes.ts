import { spawn, spawnSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { copyPackage } from '../harness/package-copy.ts';

/** A program to measure, with the output that proves that it did its work. */
export interface Program {
  readonly command: string;
  readonly args: readonly string[];
  /** Text in its output. */
  readonly says?: string;
}

/** Name of the npm script that runs graphile-migrate's own command. */
export const LIBRARY_SCRIPT = 'library:migrate';

/**
 * Builds a copy of the package, as it is deployed, without changing the checkout. It is removed when this process ends.
 * @returns its folder.
 */
export function buildPackage(): string {
  const { folder, remove } = copyPackage({ sources: true });
  process.once('exit', remove);
  const build = spawnSync('npm', ['run', '--silent', 'build'], { cwd: folder, encoding: 'utf8' });
  if (build.status !== 0) throw new Error(`the package cannot be built: ${build.stdout}${build.stderr}`);
  cpSync(import.meta.dirname, join(folder, 'bench'), { recursive: true });
  const manifest = join(folder, 'package.json');
  const { scripts, ...rest } = JSON.parse(readFileSync(manifest, 'utf8'));
  const extended = { ...rest, scripts: { ...scripts, [LIBRARY_SCRIPT]: 'graphile-migrate migrate' } };
  writeFileSync(manifest, JSON.stringify(extended, null, 2));
  return folder;
}

/** Milliseconds from the start of a process to its end. */
export async function processTime(program: Program, cwd: string, databaseUrl: string): Promise<number> {
  const { command, args, says = '' } = program;
  const startedAt = performance.now();
  const child = spawn(command, args, {
    cwd,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, DATABASE_URL: databaseUrl },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
    });
  }
  let endedAt = Number.NaN;
  child.once('exit', () => {
    endedAt = performance.now();
  });
  const exitCode = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (exitCode !== 0 || !output.includes(says)) {
    throw new Error(`${command} ${args.join(' ')} ended with ${exitCode}: ${output}`);
  }
  return endedAt - startedAt;
}
