import type { Client } from 'pg';
import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import { type Message, type MessageProxy, startMessageProxy } from '../../harness/message-proxy.ts';
import { copyPackage } from '../../harness/package-copy.ts';
import type { Moment } from '../../harness/proxy.ts';
import { runMigrations } from '../../src/index.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { committedMigrations, migrationNumber } from '../support/packages/committed-files.ts';
import { type EndableHost, startHost } from '../support/processes/host.ts';
import { readTraces } from '../support/processes/migrator-scene.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';
import { until } from '../support/until.ts';
import type { Crashes } from './crashes.ts';

/** The migrations of a run, one of each kind. All write that they were applied, or cannot be applied twice unseen. */
const MIGRATIONS = {
  'in-a-transaction': `
set local work_mem = '5MB';
alter table app.items add column owner text;
alter table app.items disable trigger items_changed;
update app.items set owner = 'ann';
alter table app.items enable trigger items_changed;
insert into app.applied values ('in a transaction');`,
  'without-a-transaction': `--! no-transaction
alter type app.kind add value if not exists 'second';`,
  concurrently: `--! no-transaction
create index concurrently if not exists items_note_idx on app.items (note);`,
  'with-a-check': `
--check: Some items have no owner. Set app.items.owner first.
--  select not exists (select from app.items where owner is null)
alter table app.items alter column owner set not null;
insert into app.applied values ('with a check');`,
  'with-an-include': `
--! Included functions/doubled.sql
create or replace function app.doubled(i integer) returns integer language sql as 'select i * 2';
--! EndIncluded functions/doubled.sql
insert into app.applied values ('with an include');`,
} as const;

/** The database before a run. */
const BEFORE = `
drop schema if exists app cascade;
create schema app;
create type app.kind as enum ('first');
create table app.applied (migration text);
create table app.items (id bigint generated always as identity, note text, changes integer default 0);
insert into app.items (note) select 'note ' || n from generate_series(1, 20) n;
create function app.note_change() returns trigger language plpgsql as
  'begin new.changes := old.changes + 1; return new; end';
create trigger items_changed before update on app.items for each row execute function app.note_change();`;

/** What a run leaves, as lines. Each migration that is applied twice, or halfway, changes one. */
const PICTURE = `
select 'recorded ' || filename as line from graphile_migrate.migrations
union all select 'applied ' || migration from app.applied
union all select 'value ' || enumlabel from pg_enum where enumtypid = 'app.kind'::regtype
union all select format('index %s, valid %s, ready %s', indexrelid::regclass, indisvalid, indisready)
  from pg_index where indrelid = 'app.items'::regclass
union all select format('trigger %s %s', tgname, tgenabled) from pg_trigger where tgrelid = 'app.items'::regclass
union all select format('column %s %s', attname, attnotnull)
  from pg_attribute where attrelid = 'app.items'::regclass and attnum > 0
union all select format('item %s', i) from app.items i
union all select format('function %s %s', oid::regprocedure, prosrc) from pg_proc where pronamespace = 'app'::regnamespace
union all select format('setting %s of %s', setconfig, setrole) from pg_db_role_setting
union all select 'prepared ' || gid from pg_prepared_xacts
union all select format('lock %s of %s', l.mode, l.locktype) from pg_locks l
  where l.database = (select oid from pg_database where datname = current_database()) and l.pid <> pg_backend_pid()
    and exists (select from pg_stat_activity a where a.pid = l.pid and a.backend_type = 'client backend')
order by 1`;

/** What dies: the process that runs the migrations, one of its connections, the backend of it, or the server. */
const VICTIMS = ['client', 'connection', 'backend', 'server'] as const;
type Victim = (typeof VICTIMS)[number];
const MOMENTS: readonly Moment[] = ['before', 'during', 'after'];

const NAME = 'crashed';

/** Every victim before, during and after every message that a run sends, as a run that is not disturbed counts them. */
export async function openCrashedRuns(): Promise<Crashes> {
  const server = await startOwnServer({ listen: 'tcp' });
  const copy = copyPackage();
  const hosts: EndableHost[] = [];
  let proxy: MessageProxy | undefined;
  const stop = async () => {
    await Promise.allSettled(hosts.map((host) => host.end()));
    await proxy?.stop();
    copy.remove();
    await server.stop();
  };
  try {
    await withClient(server.url, (client) => client.query(`create database ${NAME}`));
    const url = databaseUrl(server.url, NAME);
    await runMigrations({ connection: connectionTo(url) });
    const added = Object.entries(MIGRATIONS).map(([name, sql]) => copy.addMigration(name, sql));
    copy.modelIsOf(added.at(-1) ?? '');
    proxy = await startMessageProxy(url);
    const scene: Scene = { server, url, proxy, folder: copy.folder, hosts, undisturbed: [] };
    await resetDatabase(scene.url);
    proxy.begin();
    await finish(scene, proxy.url);
    const { messages } = proxy;
    const complete = { ...scene, undisturbed: await pictureOf(url) };
    const points = messages.flatMap((text, at) =>
      VICTIMS.flatMap((victim) =>
        MOMENTS.map((moment) => ({
          name: `${victim} killed ${moment} message ${at + 1}, ${firstLine(text)}`,
          crash: () => crash(complete, victim, moment, at + 1),
        })),
      ),
    );
    const summary = `${messages.length} messages of ${Object.keys(MIGRATIONS).length} migrations`;
    return { summary, points, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Scene {
  readonly server: OwnServer;
  readonly url: string;
  readonly proxy: MessageProxy;
  readonly folder: string;
  /** The last one waits for work, so that no case waits for the start of a process. */
  readonly hosts: EndableHost[];
  /** The picture after a run that was not disturbed. */
  readonly undisturbed: readonly string[];
}

async function crash(
  scene: Scene,
  victim: Victim,
  moment: Moment,
  number: number,
): Promise<readonly string[]> {
  const { proxy, hosts } = scene;
  await resetDatabase(scene.url);
  const host = hostOf(scene);
  let isStruck = false;
  const isHeldUp = ({ text }: Message) => moment === 'during' && text.includes('create index concurrently');
  const outcome = await withClient(scene.url, async (writer) => {
    proxy.begin({
      number,
      moment,
      async arrange(message) {
        if (isHeldUp(message)) await holdUpBuild(writer);
      },
      async strike(message) {
        isStruck = true;
        if (isHeldUp(message)) await untilHeldUp(scene.url);
        await STRIKES[victim](scene, message, host);
        await writer.end();
      },
    });
    const running = host.run({ folder: scene.folder, env: { DATABASE_URL: proxy.url } });
    return running.outcome.catch(() => undefined);
  });
  proxy.begin();
  const faults: string[] = [];
  // How often a run looks for sessions that block it depends on how long it takes.
  if (!isStruck && outcome?.ok !== true) faults.push(`The run ended before message ${number}`);
  if (victim === 'client' && isStruck) hosts.splice(hosts.indexOf(host), 1);
  else {
    faults.push(...host.faults);
    // A backend that someone ended on purpose ends the run.
    const isAsked = victim === 'backend' && outcome?.ok === false && outcome.error.sqlState === '57P01';
    if (victim === 'connection' && outcome?.ok && outcome.report.attempts > 2) {
      faults.push(`A lost connection cost ${outcome.report.attempts - 1} attempts`);
    }
    if (outcome?.ok === false && !isAsked)
      faults.push(`The run failed: ${outcome.error.code} ${outcome.error.message}`);
  }
  await finish(scene, scene.url).catch((error: Error) => faults.push(error.message));
  const found = await pictureOf(scene.url);
  faults.push(
    ...found.filter((line) => !scene.undisturbed.includes(line)).map((line) => `There is: ${line}`),
    ...scene.undisturbed.filter((line) => !found.includes(line)).map((line) => `There is no: ${line}`),
  );
  if (found.length > new Set(found).size) faults.push('A line is there twice');
  return faults;
}

const STRIKES: Readonly<
  Record<Victim, (scene: Scene, message: Message, host: EndableHost) => Promise<void>>
> = {
  client: (_, __, host) => host.kill(),
  connection: async (_, message) => message.cut(),
  async backend({ url }, message) {
    await withClient(url, async (client) => {
      const text = 'select pg_terminate_backend(pid) from pg_stat_activity where client_port = $1';
      const { rowCount } = await client.query(text, [message.port]);
      // Before the server has read who it is, the connection has no session that could be ended.
      if (rowCount === 0) message.cut();
      await until(async () => (await client.query(text, [message.port])).rowCount === 0);
    });
  },
  server: ({ server }) => server.restart('kill'),
};

/** Writes the table until the connection ends, so that the build of the index waits when its invalid index is there. */
async function holdUpBuild(client: Client): Promise<void> {
  await client.query('begin; lock table app.items in row exclusive mode');
}

async function untilHeldUp(url: string): Promise<void> {
  const text = "select from pg_index where indrelid = 'app.items'::regclass and not indisvalid";
  await withClient(url, (client) => until(async () => (await client.query(text)).rowCount === 1));
}

function hostOf({ hosts }: Scene): EndableHost {
  const host = hosts.at(-1) ?? startHost();
  if (hosts.length === 0) hosts.push(host);
  return host;
}

/** A run that is not disturbed. */
async function finish(scene: Scene, url: string): Promise<void> {
  const outcome = await hostOf(scene).run({ folder: scene.folder, env: { DATABASE_URL: url } }).outcome;
  if (!outcome.ok) throw new Error(`The next run failed: ${outcome.error.code} ${outcome.error.message}`);
  await withClient(scene.url, (client) => until(async () => (await readTraces(client)).length === 0));
}

async function resetDatabase(url: string): Promise<void> {
  const last = `${migrationNumber(committedMigrations().at(-1) ?? '')}.sql`;
  await withClient(url, async (client) => {
    await client.query(BEFORE);
    await client.query('delete from graphile_migrate.migrations where filename > $1', [last]);
  });
}

const pictureOf = (url: string) =>
  withClient(url, async (client) => {
    const { rows } = await client.query<{ line: string }>(PICTURE);
    return rows.map(({ line }) => line);
  });

function firstLine(text: string): string {
  // A message begins with its type and its length.
  const words = text
    .slice(5)
    .replace(/[^ -~\n]+/g, ' ')
    .trim();
  return words.split('\n')[0]?.slice(0, 60) ?? '';
}
