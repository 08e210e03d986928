import { parseArgs } from 'node:util';

export const USAGE = `Usage: filestore-db <command> [options]

Commands:
  migrate   apply the committed migrations that the database does not have yet
            --dry-run      print their SQL instead; changes nothing
            --allow-ahead  exit with 0 when a later version has migrated the database
  status    say how the database stands to the migrations of this package; changes nothing
            --allow-ahead  as above
  verify    compare the schema with the one that the migrations make; changes nothing
  start     run the embedded Postgres in the foreground and print its URLs
  watch     apply migrations/current.sql to the development database, again at every save
            --once         apply it once
  commit    make a committed migration of current.sql, tried on the shadow database
            -m, --message <text>  what it does, which also names its file
  uncommit  move the last committed migration back into current.sql
  rebase    after a merge, number your migrations behind those of the other branch, and hash them again
            --onto <ref>   the branch whose migrations keep their numbers; default: found by git
  reset     erase the development database and make it anew with the committed migrations
            --yes-erase <database>  (also commit, uncommit) erase it, though it is not on this machine
  check     check that the migrations are ready to be merged
            --current  check migrations/current.sql as the next one, and tell what it locks
  docs      write what is generated from the migrations: schema/, src/sql/calls.ts

  --json    one JSON document on stdout, everything else on stderr (migrate, status, verify, check)

The database: FILESTORE_MIGRATION_DATABASE_URL, else FILESTORE_DATABASE_URL, else DATABASE_URL,
else the embedded Postgres (not with NODE_ENV=production). For watch, commit, uncommit, rebase and reset:
DATABASE_URL, SHADOW_DATABASE_URL and ROOT_DATABASE_URL, or none of them for the embedded Postgres.

Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 migrations pending (status);
4 history diverged, database ahead, or schema drifted; 5 gave up waiting for the lock.
`;

/** Options of a command; none by default. */
export interface Flags {
  readonly json: boolean;
  readonly dryRun: boolean;
  readonly allowAhead: boolean;
  readonly current: boolean;
  readonly once: boolean;
  readonly message: string | undefined;
  /** Name of a branch or commit. */
  readonly onto: string | undefined;
  /** Name of a database. */
  readonly yesErase: string | undefined;
}

export type Arguments =
  | { readonly type: 'help' }
  | { readonly type: 'wrong'; readonly why: string }
  | { readonly type: 'command'; readonly command: CommandName; readonly flags: Flags };

export type CommandName =
  | 'migrate'
  | 'status'
  | 'verify'
  | 'start'
  | 'watch'
  | 'commit'
  | 'uncommit'
  | 'rebase'
  | 'reset'
  | 'check'
  | 'docs';

const ALLOWED: Readonly<Record<CommandName, readonly string[]>> = {
  migrate: ['json', 'dry-run', 'allow-ahead'],
  status: ['json', 'allow-ahead'],
  verify: ['json'],
  start: [],
  watch: ['once'],
  commit: ['message', 'yes-erase'],
  uncommit: ['yes-erase'],
  rebase: ['onto'],
  reset: ['yes-erase'],
  check: ['json', 'current'],
  docs: [],
};

/** Reads the command line. What is not understood is said, never passed over. */
export function readArguments(args: readonly string[]): Arguments {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(args);
  } catch (error) {
    return { type: 'wrong', why: error instanceof Error ? error.message : String(error) };
  }
  const { values, positionals } = parsed;
  if (values.help) return { type: 'help' };
  const [name, ...rest] = positionals;
  if (name === undefined) return { type: 'wrong', why: 'No command is given.' };
  if (!isCommand(name)) return { type: 'wrong', why: `There is no command "${name}".` };
  if (rest.length > 0) return { type: 'wrong', why: `"${rest[0]}" is not expected after ${name}.` };
  const unknown = Object.keys(values).find((option) => !ALLOWED[name].includes(option));
  if (unknown !== undefined) return { type: 'wrong', why: `${name} has no option --${unknown}.` };
  return {
    type: 'command',
    command: name,
    flags: {
      json: values.json ?? false,
      dryRun: values['dry-run'] ?? false,
      allowAhead: values['allow-ahead'] ?? false,
      current: values.current ?? false,
      once: values.once ?? false,
      message: values.message,
      onto: values.onto,
      yesErase: values['yes-erase'],
    },
  };
}

function parse(args: readonly string[]) {
  return parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      json: { type: 'boolean' },
      'dry-run': { type: 'boolean' },
      'allow-ahead': { type: 'boolean' },
      current: { type: 'boolean' },
      once: { type: 'boolean' },
      message: { type: 'string', short: 'm' },
      onto: { type: 'string' },
      'yes-erase': { type: 'string' },
    },
  });
}

function isCommand(name: string): name is CommandName {
  return Object.hasOwn(ALLOWED, name);
}
