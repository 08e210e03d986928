#!/usr/bin/env node
import { PACKED_COMMANDS } from './cli/packed-commands.ts';
import { runCommandLine } from './cli/run-command-line.ts';
import { CONFIGURED_DATABASE_HELP, withConfiguredDatabase } from './cli/with-configured-database.ts';

process.exitCode = await runCommandLine(
  { commands: PACKED_COMMANDS, databaseHelp: CONFIGURED_DATABASE_HELP },
  process.argv.slice(2),
  withConfiguredDatabase,
);
