#!/usr/bin/env node
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type MigrationEvent, migrationStatus, runMigrations } from './db/migrations.ts';
import { FilestoreError, type FilestoreErrorCode, HistoryDivergedError } from './errors.ts';
import {
  type ConnectionSettings,
  describeConnection,
  migrationConnection,
  missingUrlError,
} from './settings.ts';

const USAGE = `Usage: filestore-db <command>

Commands:
  migrate   apply the committed migrations that the database does not have yet
  status    say how the database stands to the migrations of this package; changes nothing
  start     run the embedded Postgres in the foreground and print its URL
  check     check that the migrations are ready to be merged

The database: FILESTORE_MIGRATION_DATABASE_URL, else FILESTORE_DATABASE_URL, else DATABASE_URL,
else the embedded Postgres (not with NODE_ENV=production).

Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 migrations pending (status);
4 history diverged, or database ahead; 5 another migrator holds the lock.
`;

const EXIT_CODES: Readonly<Record<FilestoreErrorCode, number>> = {
  SETTINGS_INVALID: 2,
  CONNECTION_FAILED: 1,
  MIGRATIONS_MISSING: 1,
  MIGRATIONS_INVALID: 4,
  HISTORY_DIVERGED: 4,
  DATABASE_AHEAD: 4,
  LOCK_NOT_ACQUIRED: 5,
  MIGRATION_FAILED: 1,
  EMBEDDED_POSTGRES_FAILED: 1,
  CHECK_FAILED: 1,
};

const COMMANDS: Readonly<Record<string, () => Promise<number>>> = { migrate, status, start, check };

async function migrate(): Promise<number> {
  return withDatabase(async (connection) => {
    const report = await runMigrations({ connection, onEvent: renderMigration });
    const applied = `applied ${count(report.applied.length, 'migration')}`;
    say(
      report.applied.length === 0
        ? `Up to date: ${count(report.alreadyApplied, 'migration')} applied earlier (${milliseconds(report.durationMs)})`
        : `Done: ${applied}, ${report.alreadyApplied} applied earlier (${milliseconds(report.durationMs)})`,
    );
    return 0;
  });
}

async function status(): Promise<number> {
  return withDatabase(async (connection) => {
    const { state, applied, pending, problems } = await migrationStatus({ connection });
    say(`${capitalized(describeConnection(connection))}: ${state}`);
    say(`${count(applied.length, 'migration')} applied, ${pending.length} pending`);
    for (const filename of pending) say(`PENDING  ${filename}`);
    for (const problem of problems) say(`PROBLEM  ${problem}`);
    if (state === 'current') return 0;
    return state === 'empty' || state === 'pending' ? 3 : 4;
  });
}

async function start(): Promise<number> {
  const { openEmbedded } = await import('./dev/embedded/embedded.ts');
  const embedded = await openEmbedded();
  say(`Embedded Postgres: data in ${embedded.folder}`);
  say(`URL: ${embedded.url}`);
  say('For graphile-migrate in another terminal:');
  say(`  export DATABASE_URL='${embedded.url}'`);
  say(`  export SHADOW_DATABASE_URL='${embedded.shadowUrl}'`);
  say(`  export ROOT_DATABASE_URL='${embedded.rootUrl}'`);
  if (!embedded.startedHere) {
    say('Another command runs it already, and it ends with that command.');
    await embedded.close();
    return 0;
  }
  say('Ctrl-C stops it.');
  // Pending promises alone do not keep Node running.
  const alive = setInterval(() => undefined, 60_000);
  const reason = await Promise.race([embedded.ended.then(() => 'ended' as const), untilSignal()]);
  clearInterval(alive);
  if (reason === 'ended') {
    say(`The server ended by itself; its log is in ${embedded.folder}.`);
    return 1;
  }
  await embedded.close();
  say('Stopped.');
  return 0;
}

async function check(): Promise<number> {
  const { checkMigrations } = await import('./dev/check.ts');
  for (const line of await checkMigrations()) say(`OK  ${line}`);
  return 0;
}

/** Runs `work` against the database of the environment, or in its absence against the embedded one. */
async function withDatabase(work: (connection: ConnectionSettings) => Promise<number>): Promise<number> {
  const configured = migrationConnection();
  if (configured !== undefined) return work(configured);
  if (process.env.NODE_ENV === 'production') {
    throw missingUrlError('with NODE_ENV=production the embedded Postgres is not used.');
  }
  const { openEmbedded } = await import('./dev/embedded/embedded.ts');
  say('No database URL is set: using the embedded Postgres.');
  const embedded = await openEmbedded();
  try {
    const connection = migrationConnection({ ...process.env, DATABASE_URL: embedded.url });
    if (connection === undefined) throw missingUrlError('the embedded Postgres has none.');
    const exitCode = await work(connection);
    say(`The data is in ${embedded.folder} and stays there.`);
    say(
      embedded.startedHere
        ? 'To open it: npm run db:start keeps it running and prints its URL.'
        : `It keeps running: ${embedded.url}`,
    );
    return exitCode;
  } catch (error) {
    // Until a release, developers rewrite migrations; a database of their own is then the one to go.
    if (error instanceof HistoryDivergedError)
      say(`To start with a new database, remove ${embedded.folder}.`);
    throw error;
  } finally {
    await embedded.close();
  }
}

function renderMigration(event: MigrationEvent): void {
  if (event.type === 'plan') {
    say(
      `${capitalized(event.database)} (PostgreSQL ${event.serverVersion}): ${count(event.pending.length, 'migration')} to apply`,
    );
  } else if (event.type === 'migration-end') {
    say(`OK  ${event.filename}  (${milliseconds(event.durationMs)})`);
  }
}

function untilSignal(): Promise<'signal'> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
      process.once(signal, () => resolve('signal'));
  });
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

function milliseconds(duration: number): string {
  return `${Math.round(duration)} ms`;
}

function capitalized(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
}

/** Picks the command, or says what is wrong with the arguments. */
function readArguments(args: readonly string[]): (() => Promise<number>) | string {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { help: { type: 'boolean', short: 'h' } },
    });
    if (values.help) {
      return async () => {
        process.stdout.write(USAGE);
        return 0;
      };
    }
    const [name, ...rest] = positionals;
    if (name === undefined) return 'No command is given.';
    if (rest.length > 0) return `"${rest[0]}" is not expected after ${name}.`;
    return Object.hasOwn(COMMANDS, name) ? (COMMANDS[name] ?? '') : `There is no command "${name}".`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Runs the command line and says what the process should exit with. */
export async function main(args: readonly string[]): Promise<number> {
  const command = readArguments(args);
  if (typeof command === 'string') {
    process.stderr.write(`${command}\n\n${USAGE}`);
    return 2;
  }
  try {
    return await command();
  } catch (error) {
    if (!(error instanceof FilestoreError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return EXIT_CODES[error.code];
  }
}

function isMain(): boolean {
  const script = process.argv[1];
  return script !== undefined && realpathSync(script) === fileURLToPath(import.meta.url);
}

if (isMain()) process.exitCode = await main(process.argv.slice(2));
