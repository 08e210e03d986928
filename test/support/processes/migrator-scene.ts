import { randomBytes } from 'node:crypto';
import pg, { type Client } from 'pg';
import { databaseUrl } from '../../../harness/connection.ts';
import { type Proxy as Cable, startProxy } from '../../../harness/proxy.ts';
import { GRAPHILE_LOCK_KEY, MIGRATION_LOCK_KEY } from '../../../src/session/lock-holder.ts';
import { withClient } from '../../../src/testing/with-client.ts';
import {
  closeGate,
  type Gate,
  readStagedState,
  STAGED_ENVIRONMENT,
  type StagedPackage,
  type StagedState,
  stateAfter,
  untilAtGate,
} from '../packages/staged-package.ts';
import { until } from '../until.ts';

/** A migrated database, a package with three more migrations, and a proxy in between. */
export interface Scene {
  readonly copy: StagedPackage;
  readonly proxy: Cable;
  /** The URL for a run through the proxy. */
  readonly env: Readonly<Record<string, string>>;
  /** The URL without the proxy. */
  readonly directEnv: Readonly<Record<string, string>>;
  /** Connects without the proxy. The connection is closed with the scene. */
  connect(): Promise<Client>;
  /** Makes the next run stop in the phase. */
  arrange(phase: Phase): Promise<Arrangement>;
  state(): Promise<StagedState>;
  /** The expected state when so many of the three migrations are applied, and nothing of the others. */
  stateAfter(count: 0 | 1 | 2 | 3): StagedState;
  /** Remaining sessions of migrators, and held locks of theirs. */
  traces(): Promise<readonly string[]>;
  close(): Promise<void>;
}

/** What a run is doing. */
export type Phase =
  | 'connecting'
  | 'its first look'
  | 'waiting for another migrator'
  | 'in a migration'
  | 'in a commit'
  | 'between two migrations'
  | 'comparing the schema';

export interface Arrangement {
  /** Resolves when a run has reached the phase. */
  readonly reached: Promise<unknown>;
  /** How many of the three migrations are committed at this point. */
  readonly committed: 0 | 1 | 2 | 3;
  /** Lets the run continue. */
  leave(): Promise<void>;
}

export interface SceneOptions {
  readonly copy: StagedPackage;
  readonly adminUrl: string;
  /** Name of a migrated database on that server. */
  readonly template: string;
}

export async function openScene({ copy, adminUrl, template }: SceneOptions): Promise<Scene> {
  const name = `${template}_${randomBytes(4).toString('hex')}`;
  await withClient(adminUrl, (admin) =>
    admin.query(`create database ${name} template ${template} strategy file_copy`),
  );
  const url = databaseUrl(adminUrl, name);
  const proxy = await startProxy(url);
  const clients: Client[] = [];
  const connect = async () => {
    const client = new pg.Client(url);
    client.on('error', () => undefined);
    await client.connect();
    clients.push(client);
    return client;
  };
  return {
    copy,
    proxy,
    env: { ...STAGED_ENVIRONMENT, DATABASE_URL: proxy.url },
    directEnv: { ...STAGED_ENVIRONMENT, DATABASE_URL: url },
    connect,
    async arrange(phase) {
      const arrangement = await ARRANGE[phase]({ proxy, connect });
      // A test may end before a run reaches the phase.
      arrangement.reached.catch(() => undefined);
      return arrangement;
    },
    state: () => withClient(url, (client) => readStagedState(client, copy)),
    stateAfter: (count) => stateAfter(copy, count),
    traces: () => withClient(url, readTraces),
    async close() {
      await proxy.stop();
      // The database is dropped with the server or at the end of the run, since an owner cannot while autovacuum is in it.
      await Promise.allSettled(clients.map((client) => client.end()));
    },
  };
}

type Stage = Pick<Scene, 'proxy' | 'connect'>;

const ARRANGE: Readonly<Record<Phase, (stage: Stage) => Promise<Arrangement>>> = {
  async connecting({ proxy }) {
    proxy.pause();
    return {
      reached: until(() => proxy.connections > 0),
      committed: 0,
      leave: async () => proxy.resume(),
    };
  },
  'its first look': (stage) => hold(stage, 'filestore.preflight', 0),
  async 'waiting for another migrator'({ proxy, connect }) {
    const other = await connect();
    await other.query(`select pg_catalog.pg_advisory_lock(${MIGRATION_LOCK_KEY})`);
    return {
      reached: proxy.holdAt(`pg_try_advisory_lock(${MIGRATION_LOCK_KEY})`).then((release) => release()),
      committed: 0,
      leave: () => other.end(),
    };
  },
  'in a migration': (stage) => gate(stage, 'midway'),
  'in a commit': (stage) => gate(stage, 'commit'),
  'between two migrations': (stage) => hold(stage, 'pg_advisory_unlock', 1),
  'comparing the schema': (stage) => hold(stage, 'pg_get_constraintdef', 3),
};

async function hold({ proxy }: Stage, text: string, committed: 0 | 1 | 3): Promise<Arrangement> {
  const held = proxy.holdAt(text);
  return {
    reached: held,
    committed,
    async leave() {
      const release = await held;
      release();
    },
  };
}

async function gate({ connect }: Stage, which: Gate): Promise<Arrangement> {
  const keeper = await connect();
  await closeGate(keeper, which);
  const observer = await connect();
  return {
    reached: untilAtGate(observer, which).finally(() => observer.end()),
    committed: 1,
    leave: () => keeper.end(),
  };
}

/** Remaining sessions of migrators, and held locks of theirs. */
export async function readTraces(client: Client): Promise<readonly string[]> {
  const { rows } = await client.query<{ trace: string }>(
    `select 'session ' || application_name as trace
     from pg_catalog.pg_stat_activity
     where datname = pg_catalog.current_database() and application_name like 'filestore migrate%'
     union all
     select 'lock of process ' || l.pid
     from pg_catalog.pg_locks l
     join pg_catalog.pg_database d on d.oid = l.database and d.datname = pg_catalog.current_database()
     where l.locktype = 'advisory' and l.objsubid = 1
       and (l.classid::bigint << 32) + l.objid::bigint in (${MIGRATION_LOCK_KEY}, ${GRAPHILE_LOCK_KEY})`,
  );
  return rows.map(({ trace }) => trace);
}

/** Ends the sessions of all migrators of a database. */
export async function endMigrators(client: Client): Promise<void> {
  await client.query(
    `select pg_catalog.pg_terminate_backend(pid)
     from pg_catalog.pg_stat_activity
     where datname = pg_catalog.current_database() and application_name like 'filestore migrate%'`,
  );
}
