import { PACKED_COMMANDS } from '../src/cli/packed-commands.ts';
import { runCommandLine } from '../src/cli/run-command-line.ts';
import { check } from './cli/check.ts';
import { commit } from './cli/commit.ts';
import { docs } from './cli/docs.ts';
import { reset } from './cli/reset.ts';
import { start } from './cli/start.ts';
import { uncommit } from './cli/uncommit.ts';
import { watch } from './cli/watch.ts';
import { withEmbeddedDefault } from './cli/with-embedded-default.ts';

const databaseHelp = `The database: FILESTORE_MIGRATION_DATABASE_URL, else FILESTORE_DATABASE_URL, else DATABASE_URL,
else the embedded Postgres (not with NODE_ENV=production). For watch, commit, uncommit and reset:
DATABASE_URL, SHADOW_DATABASE_URL and ROOT_DATABASE_URL, or none of them for the embedded Postgres.`;

process.exitCode = await runCommandLine(
  {
    commands: [...PACKED_COMMANDS, start, watch, commit, uncommit, reset, check, docs],
    databaseHelp,
  },
  process.argv.slice(2),
  withEmbeddedDefault,
);
