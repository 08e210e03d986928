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

/** The databases for a change of the schema. */
export interface WorkflowDatabases {
  /** The development database. */
  readonly main: ConnectionSettings;
  /** The shadow database, which every commit erases and recreates. */
  readonly shadow: ConnectionSettings;
  /** The database from which the other two are dropped and created. */
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

/** The owner of a recreated database: the role that runs the migrations. */
export function ownerOf({ user }: ConnectionSettings): string {
  return user ?? process.env.PGUSER ?? userInfo().username;
}

function open(env: Environment, kind: DatabaseKind): ConnectionSettings {
  const variable = VARIABLES[kind];
  const connection = connectionFrom(env, [variable], 'filestore schema');
  if (connection === undefined) throw new SettingsError(variable, `${variable} is not set.`);
  // graphile-migrate takes the name from a URL without decoding these characters, and would drop another database.
  if (/[;/?:@&=+$,#%]/.test(connection.database)) {
    throw new SettingsError(
      variable,
      `${variable} names a database with one of ; / ? : @ & = + $ , # % in its name, which graphile-migrate cannot drop and create. Use another name.`,
    );
  }
  return connection;
}

/**
 * Requires different names. A commit erases the shadow database, and no database can be dropped over its own
 * connection. Only names count: graphile-migrate drops by name on the server of the root URL, and one server has many
 * addresses.
 */
function refuseSharing(databases: WorkflowDatabases): void {
  const kinds = Object.keys(VARIABLES) as DatabaseKind[];
  for (const [index, kind] of kinds.entries()) {
    const { database } = databases[kind];
    const other = kinds.slice(index + 1).find((later) => databases[later].database === database);
    if (other === undefined) continue;
    throw new SettingsError(
      VARIABLES[other],
      `The databases of ${VARIABLES[kind]} and ${VARIABLES[other]} have the same name, "${database}". A commit erases the shadow database by its name. Use three different names.`,
    );
  }
}

/** The host to which pg connects when the URL has none. */
export function hostOf({ host }: ConnectionSettings): string {
  return host ?? process.env.PGHOST ?? 'localhost';
}

/** The input of every step of a schema change. */
export interface WorkflowContext {
  readonly databases: WorkflowDatabases;
  /** Stops the step: the current statement is cancelled, and the error describes the state. */
  readonly signal: AbortSignal;
  /** Called with the current step, for progress messages. */
  readonly onStep: (step: string) => void;
}
