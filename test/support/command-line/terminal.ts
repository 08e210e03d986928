import { type ChildProcess, spawn, spawnSync } from 'node:child_process';

/** Python's pty module works like `script`, but the same on every Unix. */
const RUN = 'import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))';

/** Whether a command can be run on a terminal here. It needs Python 3.9 or later. */
export function hasTerminal(): boolean {
  return (
    spawnSync('python3', ['-c', 'import os, pty; os.waitstatus_to_exitcode'], { stdio: 'ignore' }).status ===
    0
  );
}

/**
 * Starts a command on a separate terminal. Text written to its stdin is typed there: "\u0003" is Ctrl-C.
 * Its stdout is the output of the terminal.
 */
export function startInTerminal(
  command: readonly string[],
  options: { readonly cwd: string; readonly env: Readonly<Record<string, string | undefined>> },
): ChildProcess {
  return spawn('python3', ['-c', RUN, ...command], { ...options, stdio: ['pipe', 'pipe', 'pipe'] });
}

/** Moves to the beginning of a terminal's line and erases it. */
export const ERASE_LINE = '\r\u001b[2K';

/**
 * A stderr that claims to be a terminal. A real one would get the same bytes.
 * @param columns Its width.
 */
export function pretendTerminal(columns: number): Readonly<Record<string, string>> {
  const preload = `process.stderr.isTTY = true; process.stderr.columns = ${columns};`;
  return { TERM: 'xterm', NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(preload)}` };
}

/** The lines that a terminal shows after all output. */
export function screenOf(text: string): readonly string[] {
  return text.split('\n').map((line) => line.split(ERASE_LINE).at(-1) ?? '');
}
