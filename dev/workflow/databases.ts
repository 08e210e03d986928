import { userInfo } from 'node:os';
import { SettingsError } from '../../src/errors.ts';
import type { DatabaseKind } from '../../src/graphile/protocol.ts';
import {
  type ConnectionSettings,
  connectionFrom,
  type Environment,
  isSet,
} from '../../src/settings/settings.ts';
import type { Embedded } from '../embedded/embedded.ts';

/** The databases that a change of the schema goes through. */
export interface WorkflowDatabases {
  /** Where the schema is developed. */
  readonly main: ConnectionSettings;
  /** Where a commit is tried: erased and made anew each time. */
  readonly shadow: ConnectionSettings;
  /** From where the other two are dropped and made. */
  readonly root: ConnectionSettings;
}

/** The variables are graphile-migrate's, so that its own command line works on the same databases. */
export const VARIABLES: Readonly<Record<DatabaseKind, string>> = {
  main: 'DATABASE_URL',
  shadow: 'SHADOW_DATABASE_URL',
  root: 'ROOT_DATABASE_URL',
};

/**
 * The databases of the environment.
 * @returns undefined when none of the three variables is set.
 * @throws {SettingsError} when only some are set, or two of them name one database.
 */
export function configuredDatabases(env: Environment = process.env): WorkflowDatabases | undefined {
  const names = Object.values(VARIABLES);
  const missing = names.filter((name) => !isSet(env[name]));
  if (missing.length === names.length) return undefined;
  if (missing.length > 0) {
    const set = names.filter((name) => !missing.includes(name));
    throw new SettingsError(
      missing[0] ?? '',
      `${set.join(' and ')} ${set.length === 1 ? 'is' : 'are'} set, and ${missing.join(' and ')} ${missing.length === 1 ? 'is' : 'are'} not: a change of the schema needs all three (the database, the shadow database that commits are tried in, and one to make them from), or none for the embedded Postgres.`,
    );
  }
  const databases = { main: open(env, 'main'), shadow: open(env, 'shadow'), root: open(env, 'root') };
  refuseSharing(databases);
  return databases;
}

/** The same of the embedded Postgres. */
export function embeddedDatabases({ url, shadowUrl, rootUrl }: Embedded): WorkflowDatabases {
  const env = { DATABASE_URL: url, SHADOW_DATABASE_URL: shadowUrl, ROOT_DATABASE_URL: rootUrl };
  return { main: open(env, 'main'), shadow: open(env, 'shadow'), root: open(env, 'root') };
}

/** Who owns a database that is made anew: the role that the migrations run as. */
export function ownerOf({ user }: ConnectionSettings): string {
  return user ?? process.env.PGUSER ?? userInfo().username;
}

function open(env: Environment, kind: DatabaseKind): ConnectionSettings {
  const variable = VARIABLES[kind];
  const connection = connectionFrom(env, [variable], 'filestore schema');
  if (connection === undefined) throw new SettingsError(variable, `${variable} is not set.`);
  // graphile-migrate takes the name out of a URL and decodes these no more; it would drop another database.
  if (/[;/?:@&=+$,#%]/.test(connection.database)) {
    throw new SettingsError(
      variable,
      `${variable} names a database with one of ; / ? : @ & = + $ , # % in its name, which graphile-migrate cannot drop and make. Use another name.`,
    );
  }
  return connection;
}

/**
 * The shadow database is erased without being asked for, and none can be dropped from inside of itself. Names alone
 * count: graphile-migrate drops by name, on the server that the root URL leads to, and one server has many addresses.
 */
function refuseSharing(databases: WorkflowDatabases): void {
  const kinds = Object.keys(VARIABLES) as DatabaseKind[];
  for (const [index, kind] of kinds.entries()) {
    const { database } = databases[kind];
    const other = kinds.slice(index + 1).find((later) => databases[later].database === database);
    if (other === undefined) continue;
    throw new SettingsError(
      VARIABLES[other],
      `The databases of ${VARIABLES[kind]} and ${VARIABLES[other]} have the same name, "${database}". The shadow database is erased at every commit, by its name, and none can be dropped from inside of itself: name three different ones.`,
    );
  }
}

/** Where pg connects to when the URL names no host. */
export function hostOf({ host }: ConnectionSettings): string {
  return host ?? process.env.PGHOST ?? 'localhost';
}
