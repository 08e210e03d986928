#!/usr/bin/env node
// Before anything that loads pg.
import './cli/navigator.ts';
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type CommandName, type Flags, readArguments, USAGE } from './cli/arguments.ts';
import { migrate, status, verify } from './cli/commands.ts';
import { check, docs, start } from './cli/dev-commands.ts';
import type { FailureDocument } from './cli/documents.ts';
import { DONE, exitCodeOf, FAILED, WRONG_USAGE } from './cli/exit-codes.ts';
import { errorDocument, type Output, openOutput } from './cli/output.ts';
import { commit, rebase, reset, uncommit, watch } from './cli/workflow-commands.ts';
import { FilestoreError } from './errors.ts';

const COMMANDS: Readonly<Record<CommandName, (output: Output, flags: Flags) => Promise<number>>> = {
  migrate,
  status,
  verify,
  start,
  watch,
  commit,
  uncommit,
  rebase,
  reset,
  check,
  docs,
};

/** Runs the command line and says what the process should exit with. */
export async function main(args: readonly string[]): Promise<number> {
  const read = readArguments(args);
  if (read.type === 'help') {
    process.stdout.write(USAGE);
    return DONE;
  }
  if (read.type === 'wrong') {
    process.stderr.write(`${read.why}\n\n${USAGE}`);
    const output = openOutput({ json: args.includes('--json'), quietStdout: false });
    const error = { code: 'WRONG_USAGE', message: read.why } as const;
    output.document({ ok: false, command: null, error } satisfies FailureDocument);
    return WRONG_USAGE;
  }
  const { command, flags } = read;
  const output = openOutput({ json: flags.json, quietStdout: flags.dryRun });
  try {
    return await COMMANDS[command](output, flags);
  } catch (error) {
    if (error instanceof FilestoreError) {
      output.warn(`${output.paint.bad(error.code)}: ${error.message}`);
      const { code, message } = error;
      output.document({
        ok: false,
        command,
        error: { ...errorDocument(error), code, message },
      } satisfies FailureDocument);
      return exitCodeOf(error.code);
    }
    // The stack alone: what else an unknown error carries may be a secret.
    const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
    output.warn(`Unexpected error, please report it: ${stack}`);
    output.document({
      ok: false,
      command,
      error: { code: 'UNEXPECTED', message: String(error) },
    } satisfies FailureDocument);
    return FAILED;
  }
}

function isMain(): boolean {
  const script = process.argv[1];
  return script !== undefined && realpathSync(script) === fileURLToPath(import.meta.url);
}

// A reader that went away (… | head) must not end a migration midway.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

if (isMain()) process.exitCode = await main(process.argv.slice(2));
