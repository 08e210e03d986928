import { spawn } from 'node:child_process';
import { join } from 'node:path';
import pg, { type Client } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import { GRAPHILE_LOCK_KEY, MIGRATION_LOCK_KEY } from '../../src/session/lock-holder.ts';
import { collect, runCli, startCli } from '../support/command-line/command-line.ts';
import { copyStagedPackage, type StagedPackage } from '../support/packages/staged-package.ts';
import { hostForFile } from '../support/processes/host.ts';
import { type Arrangement, openScene, type Scene } from '../support/processes/migrator-scene.ts';

let copy: StagedPackage;
let scene: Scene;
let observer: Client;
let midway: Arrangement;
const host = hostForFile();

beforeAll(() => {
  copy = copyStagedPackage();
});
afterAll(() => copy?.remove());
beforeEach(async () => {
  scene = await openScene({ copy, adminUrl: inject('adminUrl'), template: inject('template') });
  observer = await scene.connect();
  midway = await scene.arrange('in a migration');
});
afterEach(() => scene.close());

const run = (settings = {}) => host().run({ folder: copy.folder, env: scene.directEnv, settings });

/** The session that holds a lock, as the server reports it. */
async function holderOf(key: string) {
  const { rows } = await observer.query<{ pid: number; role: string; applicationName: string }>(
    `select l.pid, a.usename as role, a.application_name as "applicationName"
     from pg_catalog.pg_locks l
     join pg_catalog.pg_stat_activity a using (pid)
     where l.locktype = 'advisory' and a.datname = pg_catalog.current_database()
       and (l.classid::bigint << 32) + l.objid::bigint = ${key}`,
  );
  return rows[0];
}

/** Runs graphile-migrate's own command line on the package's files. */
function startGraphile() {
  return spawn(
    process.execPath,
    [join(copy.folder, 'node_modules', 'graphile-migrate', 'dist', 'cli.js'), 'migrate'],
    {
      cwd: copy.folder,
      env: { PATH: process.env.PATH, ...scene.directEnv },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
}

describe('another running migrator', () => {
  test('that takes too long is named with process, role and application', async () => {
    const first = startCli(['migrate'], { folder: copy.folder, env: scene.directEnv });
    const ended = collect(first);
    await midway.reached;
    const holder = await holderOf(MIGRATION_LOCK_KEY);
    const worker = await holderOf(GRAPHILE_LOCK_KEY);
    const { exitCode, output } = await runCli(['migrate'], {
      folder: copy.folder,
      env: { ...scene.directEnv, FILESTORE_MIGRATION_LOCK_WAIT_MS: '500' },
    });
    expect(exitCode).toBe(5);
    expect(output).toContain(
      `server process ${holder?.pid}, role "${holder?.role}", application "${holder?.applicationName}"`,
    );
    expect(output).toContain(
      `end it: select pg_terminate_backend(${holder?.pid}), pg_terminate_backend(${worker?.pid}).`,
    );
    expect(output).toMatch(/^LOCK_NOT_ACQUIRED: Gave up after .*FILESTORE_MIGRATION_LOCK_WAIT_MS/m);
    expect(holder?.applicationName).toMatch(/^filestore migrate \d{8}T\d{6}Z /);
    expect(await run({ lockWaitMs: 0 }).outcome).toMatchObject({
      ok: false,
      error: { code: 'LOCK_NOT_ACQUIRED', applied: [] },
    });
    await midway.leave();
    expect(await ended).toMatchObject({ exitCode: 0 });
    expect(await scene.state()).toEqual(scene.stateAfter(3));
  });

  test('that is graphile-migrate itself is named too, and if it is killed, the waiting run replaces it', async () => {
    const graphile = startGraphile();
    const graphileEnded = collect(graphile);
    await midway.reached;
    const holder = await holderOf(GRAPHILE_LOCK_KEY);
    const running = run();
    expect(await running.untilEvent('waiting')).toMatchObject({ for: 'lock', holder: { pid: holder?.pid } });
    expect(await run({ lockWaitMs: 100 }).outcome).toMatchObject({
      ok: false,
      error: { code: 'LOCK_NOT_ACQUIRED', message: expect.stringContaining(`server process ${holder?.pid}`) },
    });
    graphile.kill('SIGKILL');
    await graphileEnded;
    await midway.leave();
    const outcome = await running.outcome;
    expect(outcome.ok && outcome.report.applied.map(({ filename }) => filename)).toEqual(
      copy.staged.slice(1),
    );
    expect(await scene.state()).toEqual(scene.stateAfter(3));
  });
});

describe('the connection that holds the lock', () => {
  test('when lost, only causes a warning, and other runs still wait', async () => {
    const first = run();
    await midway.reached;
    const worker = await holderOf(GRAPHILE_LOCK_KEY);
    const holder = await holderOf(MIGRATION_LOCK_KEY);
    await observer.query('select pg_catalog.pg_terminate_backend($1)', [holder?.pid]);
    expect(await first.untilEvent('warning')).toMatchObject({
      message: expect.stringContaining("connection that holds this run's lock was lost"),
    });
    const second = run();
    expect(await second.untilEvent('waiting')).toMatchObject({ holder: { pid: worker?.pid } });
    await midway.leave();
    expect(await first.outcome).toMatchObject({
      ok: true,
      report: { applied: { length: 3 }, schema: { state: 'same' } },
    });
    expect(await second.outcome).toMatchObject({ ok: true, report: { applied: [] } });
    expect(await scene.state()).toEqual(scene.stateAfter(3));
    expect(host().faults).toEqual([]);
  });

  test('is kept, also when the server ends idle sessions', async () => {
    await observer.query(
      `do $$ begin execute format('alter database %I set idle_session_timeout = 300', pg_catalog.current_database()); end $$`,
    );
    const first = run();
    await midway.reached;
    const holder = await holderOf(MIGRATION_LOCK_KEY);
    await first.untilEvent('progress');
    expect(await holderOf(MIGRATION_LOCK_KEY)).toEqual(holder);
    await midway.leave();
    expect(await first.outcome).toMatchObject({ ok: true });
    expect(first.events.map(({ type }) => type)).not.toContain('warning');
  });
});

describe('the session that migrates', () => {
  test('fails the run with the reason when an administrator ends it', async () => {
    const first = run();
    await midway.reached;
    const worker = await holderOf(GRAPHILE_LOCK_KEY);
    await observer.query('select pg_catalog.pg_terminate_backend($1)', [worker?.pid]);
    expect(await first.outcome).toMatchObject({
      ok: false,
      error: {
        code: 'MIGRATION_FAILED',
        sqlState: '57P01',
        applied: [copy.staged[0]],
        message: expect.stringMatching(
          /staged-second.*terminating connection due to administrator command.*Ask why/,
        ),
        cause: { code: '57P01' },
      },
    });
    expect(host().faults).toEqual([]);
    expect(await scene.state()).toEqual(scene.stateAfter(1));
    await midway.leave();
    expect(await run().outcome).toMatchObject({ ok: true });
    expect(await scene.state()).toEqual(scene.stateAfter(3));
  });

  test('is retried when it gets no connection', async () => {
    const superuser = await connectAsSuperuser();
    const role = await makeMigrator(superuser);
    try {
      const url = new URL(scene.directEnv.DATABASE_URL ?? '');
      url.username = role;
      url.password = 'single';
      const env = { ...scene.directEnv, DATABASE_URL: url.href };
      const running = host().run({ folder: copy.folder, env });
      expect(await running.untilEvent('retry')).toMatchObject({
        reason: expect.stringContaining('too many connections'),
      });
      await superuser.query(`alter role ${role} connection limit 2`);
      await midway.leave();
      expect(await running.outcome).toMatchObject({ ok: true });
    } finally {
      await superuser.query(`drop owned by ${role} cascade; drop role ${role}`);
      await superuser.end();
    }
  });

  /** A role with the rights of the owner of the schemas, and a limit of one connection. */
  async function makeMigrator(superuser: Client): Promise<string> {
    const { rows } = await observer.query<{ role: string; owner: string }>(
      "select pg_catalog.current_database() || '_single' as role, current_user as owner",
    );
    const { role = '', owner = '' } = rows[0] ?? {};
    await superuser.query(`create role ${role} login password 'single' connection limit 1 in role ${owner}`);
    return role;
  }

  /** Only a superuser may give away the rights of the owner. */
  async function connectAsSuperuser(): Promise<Client> {
    const { pathname } = new URL(scene.directEnv.DATABASE_URL ?? '');
    const client = new pg.Client(databaseUrl(inject('superuserUrl'), pathname.slice(1)));
    await client.connect();
    return client;
  }
});
