import { randomBytes } from 'node:crypto';
import type { Client } from 'pg';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import { dropTestDatabase } from '../../src/testing/leftovers.ts';
import { readState } from '../../src/testing/server-state.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { IS_THERE, serviceDatabasesForEachTest } from '../support/databases/service-databases.ts';
import { asSuperuser } from '../support/databases/test-database.ts';
import { createOwner, dropOwner } from '../support/roles/test-role.ts';
import { one } from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

const createDatabase = serviceDatabasesForEachTest();

const LONG_AGO = 1_700_000_000;
const USER = `leftovers_${randomBytes(4).toString('hex')}`;
/** URL of a separate user, whose databases and template no other test touches. */
let url: string;
const made: string[] = [];

beforeAll(async () => {
  url = await asSuperuser((superuser) => createOwner(superuser, inject('superuserUrl'), USER));
});
afterEach(() =>
  asUser(async (user) => {
    for (const name of made.splice(0)) {
      await user.query(`drop database if exists ${name}`);
      await user.query(`drop role if exists ${name}`);
    }
  }),
);
afterAll(() => asSuperuser((superuser) => dropOwner(superuser, USER)));

const create = () => createDatabase({ server: url });

const asUser = <T>(work: (user: Client) => Promise<T>) => withClient(url, work);

/** A name as of a test database that was created at that time, in seconds. */
function nameFrom(seconds: number): string {
  const name = `filestore_test_${seconds}_${randomBytes(6).toString('hex')}`;
  made.push(name);
  return name;
}

function templateName(): string {
  const name = `filestore_template_${randomBytes(6).toString('hex')}`;
  made.push(name);
  return name;
}

const leaveDatabase = (user: Client, name: string, comment = '') =>
  user
    .query(`create database ${name} template template0 strategy wal_log`)
    .then(() => user.query(`comment on database ${name} is '${comment}'`));

const isThere = (name: string) => asUser((user) => one(user, IS_THERE, [name]));

/** A worker that finds another at work leaves the rest to it. */
const untilGone = (name: string) =>
  until(async () => {
    await create();
    const { database, role } = await isThere(name);
    return !database && !role;
  });

const daysAgo = (days: number) => new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10);

test('a database and a role that a killed run left are removed', async () => {
  const [whole, only] = [nameFrom(LONG_AGO), nameFrom(LONG_AGO)];
  await asUser(async (user) => {
    await leaveDatabase(user, whole);
    for (const name of [whole, only]) await user.query(`create role ${name} role current_user`);
  });
  await untilGone(whole);
  await untilGone(only);
});

test('a database in use stays, however old it is, and so does one that has just been created', async () => {
  const now = Math.floor(Date.now() / 1000);
  const [used, young, unused] = [nameFrom(LONG_AGO), nameFrom(now), nameFrom(LONG_AGO)];
  await asUser(async (user) => {
    for (const name of [used, young]) await leaveDatabase(user, name);
  });
  await withClient(databaseUrl(url, used), async () => {
    await asUser((user) => leaveDatabase(user, unused));
    await untilGone(unused);
    expect(await isThere(used)).toMatchObject({ database: true });
    expect(await isThere(young)).toMatchObject({ database: true });
  });
});

const IS_BLOCKED = 'select cardinality(pg_blocking_pids($1)) > 0 as blocked';

test('a role that another worker drops at the same moment is dropped', async () => {
  const name = nameFrom(LONG_AGO);
  await asUser(async (user) => {
    await user.query(`create role ${name} role current_user`);
    await user.query('begin');
    await user.query(`drop role ${name}`);
    await asUser(async (other) => {
      const { pid } = await one(other, 'select pg_backend_pid() as pid');
      const dropped = dropTestDatabase(other, name);
      await until(async () => (await one(user, IS_BLOCKED, [pid])).blocked);
      await user.query('commit');
      await dropped;
    });
  });
  expect(await isThere(name)).toEqual({ database: false, role: false });
});

test('a database with a similar name stays', async () => {
  const name = `filestore_test_${LONG_AGO}_mine`;
  made.push(name);
  const unused = nameFrom(LONG_AGO);
  await asUser(async (user) => {
    await leaveDatabase(user, name);
    await leaveDatabase(user, unused);
  });
  await untilGone(unused);
  expect(await isThere(name)).toMatchObject({ database: true });
});

test('a template of another version stays while runs use it, and is removed when none did for a week', async () => {
  const [used, unused] = [templateName(), templateName()];
  await asUser(async (user) => {
    await leaveDatabase(user, used, `Template …, last used ${daysAgo(6)}`);
    await leaveDatabase(user, unused, `Template …, last used ${daysAgo(9)}`);
    await user.query(`alter database ${unused} allow_connections false`);
  });
  await untilGone(unused);
  expect(await isThere(used)).toMatchObject({ database: true });
});

const TEMPLATE_OF_USER = `
  select d.oid, d.datname as name, shobj_description(d.oid, 'pg_database') as comment
  from pg_database d
  where d.datname like 'filestore\\_template\\_%' and not d.datallowconn
    and d.datdba = (select oid from pg_roles where rolname = current_user)`;

test('a run marks its template as used, which keeps it', async () => {
  await create();
  const before = await asUser(async (user) => {
    const template = await one(user, TEMPLATE_OF_USER);
    await user.query(
      `comment on database ${template.name} is '${template.comment.replace(/\S+$/, daysAgo(9))}'`,
    );
    return template;
  });
  await until(async () => {
    await create();
    const { comment } = await asUser((user) => one(user, TEMPLATE_OF_USER));
    return comment.endsWith(`last used ${daysAgo(0)}`);
  });
  expect(await asUser((user) => one(user, TEMPLATE_OF_USER))).toMatchObject({ oid: before.oid });
});

test('a template that someone dropped is made again', async () => {
  await create();
  await asUser(async (user) => {
    const { name } = await one(user, TEMPLATE_OF_USER);
    await user.query(`drop database ${name}`);
  });
  const db = await create();
  expect((await db.pool.query('select from filestore.nodes')).rows).toEqual([]);
});

test('a template that is removed while a run copies it is made again', async () => {
  await create();
  const moved = templateName();
  const db = await asUser(async (user) => {
    const { name } = await one(user, TEMPLATE_OF_USER);
    await user.query('begin');
    await user.query(`alter database ${name} rename to ${moved}`);
    const created = create();
    await asUser((other) => until(async () => (await one(other, HAS_WAITING_COPY, [name])).waits));
    await user.query('commit');
    return created;
  });
  expect((await db.pool.query('select from filestore.nodes')).rows).toEqual([]);
});

const HAS_WAITING_COPY = `
  select exists (
    select from pg_stat_activity where query like '% template ' || $1 and wait_event_type = 'Lock'
  ) as waits`;

test('a database of a test that does nothing stays in use, also where the server ends idle sessions', async () => {
  await asSuperuser((superuser) => superuser.query(`alter role ${USER} set idle_session_timeout = '50ms'`));
  try {
    const { name } = await create();
    const idle = await asSuperuser((superuser) =>
      until(async () => {
        const sessions = await one(superuser, SESSIONS, [name]);
        return sessions.longest > 0.15 || sessions.count === 0 ? sessions : undefined;
      }),
    );
    expect(idle.count).toBe(1);
  } finally {
    await asSuperuser((superuser) => superuser.query(`alter role ${USER} reset idle_session_timeout`));
  }
});

const SESSIONS = `
  select count(*)::int, extract(epoch from max(clock_timestamp() - state_change))::float8 as longest
  from pg_stat_activity
  where datname = $1`;

test('each history of migrations has its own template', async () => {
  const names = await asUser(async (user) => [
    await readState(user, 'sha1:a'),
    await readState(user, 'sha1:b'),
    await readState(user, 'sha1:a'),
  ]);
  const [one, two, again] = names.map(({ template }) => template);
  expect(two).not.toBe(one);
  expect(again).toBe(one);
});
