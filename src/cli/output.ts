import type { FilestoreError } from '../errors.ts';
import { describeEvent, type MigrationEvent } from '../migrate/events.ts';
import { printable, printableLines } from '../text.ts';
import type { FailureDocument } from './documents.ts';
import { type Paint, paintFor, showPaint } from './paint.ts';

/**
 * The output of a command. With `--json`, stdout has one document and stderr everything else. With
 * `--events`, stdout has one event per line, and the document as the last line.
 */
export interface Output {
  /** Colours for the lines; none without a terminal. */
  readonly paint: Paint;
  /** A line of the command's result. */
  say(line: string): void;
  /** A warning or an error. */
  warn(line: string): void;
  /** SQL of this package, unchanged. Other lines then go to stderr. */
  print(text: string): void;
  /** A status line; only on a terminal, where it is overwritten. */
  busy(line: string): void;
  /** A line of progress in a log; a terminal has a status line instead. */
  step(line: string): void;
  /**
   * A status line that is overwritten on a terminal; without one, it is printed at most every ten seconds.
   */
  progress(line: string): void;
  /** An event as a line of JSON; printed only with `--events`. */
  event(value: Readonly<Record<string, unknown>>): void;
  /** Progress. On a terminal, it is one line that is overwritten. */
  render(event: MigrationEvent): void;
  /** The result as a document; printed only with `--json` and `--events`. */
  document(value: Readonly<Record<string, unknown>>): void;
}

/** Without a terminal, progress is printed less often, since logs are read later. */
const PROGRESS_EVERY_MS = 10_000;
const ERASE_LINE = '\r\u001b[2K';

/** The content of stdout: lines for people, text such as SQL, one document, or events. */
export type StdoutKind = 'lines' | 'text' | 'json' | 'events';

export function openOutput(kind: StdoutKind): Output {
  const forPrograms = kind === 'json' || kind === 'events';
  // A dumb terminal, such as an editor's, does not support erasing a line.
  const terminal = process.stderr.isTTY === true && process.env.TERM !== 'dumb' && !forPrograms;
  const state = { progressAt: Number.NEGATIVE_INFINITY, onLine: false };
  const endProgress = () => {
    if (state.onLine) process.stderr.write(ERASE_LINE);
    state.onLine = false;
  };
  const paint = paintFor(terminal && process.stdout.isTTY === true, process.env);
  const write = (stream: NodeJS.WriteStream, line: string) => {
    endProgress();
    // No characters that a terminal executes, except for the colours of this package.
    stream.write(`${showPaint(printableLines(line))}\n`);
  };
  const say = (line: string) => write(kind === 'lines' ? process.stdout : process.stderr, line);
  const warn = (line: string) => write(process.stderr, line);
  const progress = (line: string) => {
    if (terminal) {
      // A longer line would wrap, and only its last row would be erased. Some terminals report no columns.
      process.stderr.write(`${ERASE_LINE}${printable(line).slice(0, (process.stderr.columns || 80) - 1)}`);
      state.onLine = true;
    } else if (performance.now() - state.progressAt > PROGRESS_EVERY_MS) {
      state.progressAt = performance.now();
      warn(line);
    }
  };
  const event = (value: Readonly<Record<string, unknown>>) => {
    if (kind === 'events') process.stdout.write(`${JSON.stringify({ atMs: Date.now(), ...value })}\n`);
  };
  return {
    paint,
    say,
    warn,
    busy(line) {
      if (terminal) progress(line);
    },
    step(line) {
      if (!terminal) warn(line);
    },
    progress,
    print(text) {
      if (!forPrograms) process.stdout.write(text);
    },
    event,
    render(told) {
      event({ ...told });
      if (told.type === 'span') return;
      const line = describeEvent(told);
      if (told.type === 'progress') progress(line);
      else if (told.type === 'migration-start') {
        // The end of the migration is reported too. A terminal shows this line until then.
        if (terminal) progress(line);
      } else if (told.type === 'plan' || told.type === 'migration-end') say(line);
      else warn(line);
    },
    document(value) {
      if (kind === 'json') process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
      event({ type: 'result', ...value });
    },
  };
}

/**
 * An error as a document: code, message and other fields, without the stack; of its cause only the message.
 */
export function errorDocument(error: FilestoreError): FailureDocument['error'] {
  const { cause, code, message, ...fields } = error;
  return {
    ...fields,
    code,
    message,
    ...(cause instanceof Error && { cause: cause.message }),
  };
}
