import type { MigrationEvent } from '../db/events.ts';
import { describeEvent } from '../db/events.ts';
import type { FilestoreError } from '../errors.ts';
import { type Paint, paintFor } from './paint.ts';

/** Where a command's words go. With `--json`, stdout has one document and stderr everything else. */
export interface Output {
  /** Colours for the lines; none without a terminal. */
  readonly paint: Paint;
  /** A line of the command's result. */
  say(line: string): void;
  /** A line that something is not as it should be. */
  warn(line: string): void;
  /** Text that is the result itself, such as SQL; what is said goes to stderr then. */
  print(text: string): void;
  /** That something is under way; on a terminal only, in one line that changes. */
  busy(line: string): void;
  /** What happens meanwhile. On a terminal, progress is one line that changes. */
  render(event: MigrationEvent): void;
  /** The document that a command ends with; printed with `--json` only. */
  document(value: Readonly<Record<string, unknown>>): void;
}

/** Without a terminal, progress is a line now and then: logs are read later. */
const PROGRESS_EVERY_MS = 10_000;
const ERASE_LINE = '\r\u001b[2K';

export function openOutput({
  json,
  quietStdout,
}: {
  readonly json: boolean;
  readonly quietStdout: boolean;
}): Output {
  // A dumb terminal, such as an editor's, does not obey the codes that erase a line.
  const terminal = process.stderr.isTTY === true && process.env.TERM !== 'dumb' && !json;
  const state = { progressAt: Number.NEGATIVE_INFINITY, onLine: false };
  const endProgress = () => {
    if (state.onLine) process.stderr.write(ERASE_LINE);
    state.onLine = false;
  };
  const write = (stream: NodeJS.WriteStream, line: string) => {
    endProgress();
    stream.write(`${line}\n`);
  };
  const say = (line: string) => write(json || quietStdout ? process.stderr : process.stdout, line);
  const warn = (line: string) => write(process.stderr, line);
  const progress = (line: string) => {
    if (terminal) {
      // A longer one would wrap, and only its last row be erased. Some terminals say that they have no columns.
      process.stderr.write(`${ERASE_LINE}${line.slice(0, (process.stderr.columns || 80) - 1)}`);
      state.onLine = true;
    } else if (performance.now() - state.progressAt > PROGRESS_EVERY_MS) {
      state.progressAt = performance.now();
      warn(line);
    }
  };
  return {
    paint: paintFor(terminal && process.stdout.isTTY === true, process.env),
    say,
    warn,
    busy(line) {
      if (terminal) progress(line);
    },
    print(text) {
      if (!json) process.stdout.write(text);
    },
    render(event) {
      const line = describeEvent(event);
      if (event.type === 'progress') progress(line);
      else if (event.type === 'migration-start') {
        // Its end says as much; on a terminal it is seen that something is under way.
        if (terminal) progress(line);
      } else if (event.type === 'plan' || event.type === 'migration-end') say(line);
      else warn(line);
    },
    document(value) {
      if (json) process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
    },
  };
}

/** An error as a document: code, message and what else it carries, but no stack and nothing of its cause but words. */
export function errorDocument(error: FilestoreError): Readonly<Record<string, unknown>> {
  const { cause, ...fields } = error;
  return {
    ...fields,
    message: error.message,
    ...(cause instanceof Error && { cause: cause.message }),
  };
}
