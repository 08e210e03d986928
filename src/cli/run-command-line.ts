import { codeOf } from '../cause-codes.ts';
import { FilestoreError } from '../errors.ts';
import { type CommandLine, readArguments, usageOf } from './arguments.ts';
import type { Command, WithDatabase } from './define-command.ts';
import type { FailureDocument } from './documents.ts';
import { DONE, exitCodeOf, FAILED, WRONG_USAGE } from './exit-codes.ts';
import { errorDocument, type Output, openOutput, type StdoutKind } from './output.ts';

/**
 * Runs a command line to its end.
 * @param withDatabase Opens the database for the commands that work on one.
 * @returns the exit code of the process.
 */
export async function runCommandLine(
  commandLine: CommandLine,
  args: readonly string[],
  withDatabase: WithDatabase,
): Promise<number> {
  // A closed pipe (… | head) must not stop a migration. A full disk must not look like success.
  process.stderr.on('error', () => undefined);
  process.stdout.on('error', (error) => {
    const code = codeOf(error);
    if (code !== 'EPIPE') process.once('exit', () => failOutput(code));
  });
  const read = readArguments(args, commandLine.commands);
  if (read.type === 'help') {
    process.stdout.write(usageOf(commandLine));
    return DONE;
  }
  if (read.type === 'wrong') {
    process.stderr.write(`${read.why}\n\n${usageOf(commandLine)}`);
    const output = openOutput(stdoutKindOf(commandLine.commands, (option) => args.includes(`--${option}`)));
    const error = { code: 'WRONG_USAGE', message: read.why } as const;
    output.document({ ok: false, command: null, error } satisfies FailureDocument);
    return WRONG_USAGE;
  }
  const { command, flags } = read;
  const output = openOutput(stdoutKindOf([command], (option) => flags[option] === true));
  let variable: string | null | undefined;
  const withNamedDatabase: WithDatabase = (to, work) =>
    withDatabase(to, (connection) => {
      variable = connection.variable ?? null;
      return work(connection);
    });
  const document: Output['document'] = (value) =>
    output.document({ ...value, ...(variable !== undefined && { variable }) });
  try {
    return await command.run({ ...output, document }, flags, withNamedDatabase);
  } catch (error) {
    if (error instanceof FilestoreError) {
      output.warn(`${output.paint.bad(error.code)}: ${error.message}`);
      document({
        ok: false,
        command: command.name,
        error: errorDocument(error),
      } satisfies FailureDocument);
      return exitCodeOf(error.code);
    }
    // Only the stack: other fields of an unknown error may contain a secret.
    const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
    output.warn(`Unexpected error, please report it: ${stack}`);
    document({
      ok: false,
      command: command.name,
      error: { code: 'UNEXPECTED', message: String(error) },
    } satisfies FailureDocument);
    return FAILED;
  }
}

function failOutput(code: string | null | undefined): void {
  process.stderr.write(`The output could not be written (${code}).\n`);
  process.exitCode ||= FAILED;
}

/** What stdout has with the given options. What programs read takes precedence. */
function stdoutKindOf(commands: readonly Command[], isSet: (option: string) => boolean): StdoutKind {
  const kinds = commands
    .flatMap(({ options }) => Object.entries(options))
    .flatMap(([name, { stdout }]) => (stdout !== undefined && isSet(name) ? [stdout] : []));
  return (['events', 'json', 'text'] as const).find((kind) => kinds.includes(kind)) ?? 'lines';
}
