import pg, { type Client } from 'pg';
import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { createWorld, readState, reset, type World } from '../orders/world.ts';
import type { Point, Points } from '../support/points.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';
import { until } from '../support/until.ts';
import { UPKEEP_LOOPS, type UpkeepLoop } from './upkeep-loops.ts';

/** What dies: the backend of the session, or the server. */
const VICTIMS = ['backend', 'server'] as const;

/** The lock for which a session waits at the point where it dies. */
const LOCK = 4711;

/**
 * Numbers the points of a session: after each statement that writes a table, and each commit, before it is durable. A number
 * is not given again when its transaction is rolled back. The session waits at the point `crash.at`.
 */
const POINTS = `
create schema crash;
create sequence crash.points;
create function crash.note() returns trigger language plpgsql security definer as $$
declare
  number bigint;
  what   text := tg_table_name;
begin
  if tg_level = 'ROW' then
    if current_setting('crash.committing', true) = pg_current_xact_id()::text then
      return null;
    end if;
    perform set_config('crash.committing', pg_current_xact_id()::text, true);
    what := 'commit';
  end if;
  number := nextval('crash.points');
  raise notice 'crash point %', what;
  if number = nullif(current_setting('crash.at', true), '')::bigint then
    perform pg_advisory_lock(${LOCK});
  end if;
  return null;
end
$$;
do $$
declare
  name text;
begin
  for name in select relname from pg_class where relnamespace = 'filestore'::regnamespace and relkind = 'r' loop
    execute format('create trigger zz_crash after insert or update or delete on filestore.%I for each statement execute function crash.note()', name);
    execute format('create constraint trigger zz_crash_commit after insert or update or delete on filestore.%I deferrable initially deferred for each row execute function crash.note()', name);
  end loop;
end
$$;`;

/** Rows that the picture of the world lacks. */
const MORE = `
select format('backfill of %s.%s: %s filled, up to %s, finished %s, in a transaction %s',
    table_name, column_name, filled, last_key, finished_at is not null, transaction_id is not null) as line
from filestore.backfills
union all select format('shade of node %s: %s', case when id > 1000 then 'new' else id::text end, shade) from filestore.nodes
union all select 'entry of a scan that has ended: ' || e.path from filestore.scan_entries e join filestore.scans s on s.id = e.scan_id
  where s.ended_at is not null
union all select format('lock %s of %s', mode, locktype) from pg_locks
  where database = (select oid from pg_database where datname = current_database()) and pid <> pg_backend_pid()
order by 1`;

/** Every victim at every point of upkeep in a small world, as a loop that is not disturbed counts them. */
export async function openCrashedLoops(): Promise<Points> {
  const server = await startOwnServer({ settings: ['autovacuum=off'] });
  try {
    await withClient(server.url, (client) => client.query('create database loops'));
    const url = databaseUrl(server.url, 'loops');
    await runMigrations({ connection: connectionTo(url) });
    const scene = await openScene(server, url);
    const all: Point[] = [];
    const counts: string[] = [];
    for (const [name, loop] of Object.entries(UPKEEP_LOOPS)) {
      await putBack(scene, loop);
      const names = await runLoop(scene, loop);
      const undisturbed = await readLines(scene);
      if (undisturbed.faults.length > 0) throw new Error(`${name}: ${undisturbed.faults.join('\n')}`);
      counts.push(`${name} ${names.length}`);
      for (const [at, what] of names.entries()) {
        for (const victim of VICTIMS) {
          all.push({
            name: `${name}, ${victim} killed at point ${at + 1} of ${names.length} (${what})`,
            play: () => crash(scene, loop, victim, at + 1, undisturbed.lines),
          });
        }
      }
    }
    const stop = async () => {
      await scene.world().watcher.end();
      await server.stop();
    };
    return { summary: () => `points of each loop: ${counts.join(', ')}`, all, stop };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

interface Scene {
  readonly server: OwnServer;
  readonly url: string;
  /** On the present connection. */
  world(): World;
  /** Connects again after the server was killed. */
  reconnect(): Promise<void>;
}

async function openScene(server: OwnServer, url: string): Promise<Scene> {
  const watcher = await connect(url);
  for (const table of ['nodes', 'snapshots']) {
    await watcher.query(`alter table filestore.${table} add column shade text`);
  }
  let world = await createWorld(watcher, url, {});
  await watcher.query(POINTS);
  return {
    server,
    url,
    // Without what was found before: each state is checked.
    world: () => ({ ...world, sound: new Set() }),
    async reconnect() {
      await world.watcher.end().catch(() => undefined);
      world = { ...world, watcher: await connect(url) };
    },
  };
}

async function crash(
  scene: Scene,
  loop: UpkeepLoop,
  victim: (typeof VICTIMS)[number],
  at: number,
  undisturbed: readonly string[],
): Promise<readonly string[]> {
  await putBack(scene, loop);
  await scene.world().watcher.query('select pg_advisory_lock($1)', [LOCK]);
  const running = runLoop(scene, loop, at).then(
    () => 'finished',
    () => 'died',
  );
  const waiting = until(async () => {
    const { rows } = await scene
      .world()
      .watcher.query<{ pid: number }>(
        'select pid from pg_locks where locktype = $1 and objid = $2 and not granted',
        ['advisory', LOCK],
      );
    return rows[0]?.pid;
  });
  const reached = await Promise.race([waiting, running]);
  if (typeof reached === 'string') return [`The loop ${reached} before the point`];
  if (victim === 'server') await scene.server.restart('immediate');
  else await scene.world().watcher.query('select pg_terminate_backend($1)', [reached]);
  await running;
  if (victim === 'server') await scene.reconnect();
  else await scene.world().watcher.query('select pg_advisory_unlock($1)', [LOCK]);
  await runLoop(scene, loop);
  const { lines, faults } = await readLines(scene);
  // A scan that the server has lost is another one, with other commands.
  const isLost = victim === 'server' && lines.some((line) => line.startsWith('scan new'));
  const compared = (all: readonly string[]) =>
    isLost ? all.filter((line) => !/^(scan|command) /.test(line)) : all;
  return [...faults, ...differences(compared(undisturbed), compared(lines))];
}

/** What one list has more often than the other. */
function differences(expected: readonly string[], found: readonly string[]): readonly string[] {
  const left = [...expected];
  const extra = found.filter((line) => {
    const at = left.indexOf(line);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
  return [...extra.map((line) => `There is: ${line}`), ...left.map((line) => `There is no: ${line}`)];
}

async function putBack(scene: Scene, { setup = [] }: UpkeepLoop): Promise<void> {
  await reset(scene.world());
  for (const text of ['drop schema if exists old cascade', ...setup]) await scene.world().watcher.query(text);
}

/** @returns the names of the points that it passed. */
async function runLoop({ url }: Scene, { call }: UpkeepLoop, at?: number): Promise<readonly string[]> {
  const client = await connect(url);
  const names: string[] = [];
  client.on('notice', ({ message }) => {
    const [, name] = /^crash point (.*)/.exec(message ?? '') ?? [];
    if (name !== undefined) names.push(name);
  });
  try {
    await client.query(`alter sequence crash.points restart; set crash.at = '${at ?? ''}'`);
    await call(client);
    return names;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function readLines(scene: Scene): Promise<{ lines: readonly string[]; faults: readonly string[] }> {
  const { rows } = await scene.world().watcher.query<{ line: string }>(MORE);
  const { picture, faults } = await readState(scene.world());
  return { lines: [...picture, ...rows.map(({ line }) => line)].map(withoutNewIds), faults };
}

/** A new id in a result depends on how often it was tried. */
const withoutNewIds = (line: string) => line.replace(/"scan_id": \d+/g, '"scan_id": …');

async function connect(url: string): Promise<Client> {
  const client = new pg.Client(url);
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
