import { SettingsError } from '../errors.ts';
import { capitalized, count, paragraph } from '../text.ts';
import { type Database, type DatabaseOptions, databaseFromUrl, resolveDatabase } from './database.ts';
import { type Environment, isSet } from './settings.ts';

/** A database of a fleet, as a caller names it: with `connectionString` or `connection`. */
export interface FleetDatabase extends Omit<DatabaseOptions, 'env'> {
  /**
   * For reports and messages: letters, digits and `. _ / -`, beginning with a letter or digit. Each name
   * occurs once.
   */
  readonly name: string;
  /** What messages call it, such as `line 7 of databases.txt`. Default: its place in the list. */
  readonly origin?: string;
}

/** The same, resolved. */
export interface FleetMember {
  readonly name: string;
  readonly database: Database;
  /** Name of an earlier database with the same settings, which is the same database. */
  readonly twin: string | undefined;
}

/** No colon: a URL in the place of a name must not be printed. */
const NAME = /^[\p{L}\p{N}][\p{L}\p{N}._/-]*$/u;

/**
 * Resolves all databases of a fleet, before anything runs.
 * @throws {SettingsError} that names every database at fault.
 */
export function resolveFleet(databases: readonly FleetDatabase[], env?: Environment): readonly FleetMember[] {
  if (databases.length === 0) {
    throw new SettingsError('databases', 'The list of databases is empty. Name at least one database.');
  }
  const members: FleetMember[] = [];
  const problems: string[] = [];
  const origins = new Map<string, string>();
  const names = new Map<string, string>();
  for (const [index, one] of databases.entries()) {
    const { name, origin = `database ${index + 1} of the list` } = one;
    const before = origins.get(name);
    if (!NAME.test(name)) {
      problems.push(
        paragraph(
          `The name of ${origin} has characters that a name cannot have.`,
          'Use only letters, digits and . _ / - in it.',
        ),
      );
    } else if (before !== undefined) {
      problems.push(`The name "${name}" is there twice: ${before}, and ${origin}. Give each its own name.`);
    }
    origins.set(name, origin);
    try {
      const database = resolveMember(one, env);
      const settings = settingsKey(database);
      members.push({ name, database, twin: names.get(settings) });
      if (!names.has(settings)) names.set(settings, name);
    } catch (error) {
      if (!(error instanceof SettingsError)) throw error;
      problems.push(`${NAME.test(name) ? `database "${name}" (${origin})` : origin}: ${error.message}`);
    }
  }
  refuseProblems(problems);
  return members;
}

/**
 * Refuses a list with problems: all of them at once, so that they are corrected at once.
 * @throws {SettingsError} unless there is none.
 */
export function refuseProblems(problems: readonly string[]): void {
  const [first, ...others] = problems.map(capitalized);
  if (first === undefined) return;
  const lines = [first, ...others].map((line) => `  ${line}`).join('\n');
  throw new SettingsError(
    'databases',
    others.length === 0
      ? `${first} Nothing was run.`
      : `The list of databases has ${count(problems.length, 'problem')}. Nothing was run.\n${lines}`,
  );
}

function resolveMember({ connectionString, connection }: FleetDatabase, env?: Environment): Database {
  if (connectionString !== undefined && isSet(connectionString)) {
    return databaseFromUrl('its URL', connectionString, env);
  }
  if (connection !== undefined) return resolveDatabase({ connection, ...(env && { env }) });
  throw new SettingsError('databases', 'it has no connectionString and no connection. Add one of them.');
}

/**
 * The same for two databases whose settings lead to one. User and options count too: poolers of several
 * tenants choose the database by them.
 */
function settingsKey({ config }: Database): string {
  const { host = process.env.PGHOST ?? 'localhost', port = process.env.PGPORT ?? 5432 } = config;
  const { database, user, options } = config;
  return JSON.stringify([host, String(port), database, user, options]);
}
