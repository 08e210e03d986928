import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { ACCESS_LEVELS, type AccessLevel } from '../../src/access-levels.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { collect, startCli } from '../support/command-line/command-line.ts';
import { editorOf } from '../support/command-line/workflow.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { closeGate, openGate, STAGED_ENVIRONMENT, untilAtGate } from '../support/packages/staged-package.ts';
import { type LoginRole, rolesForEachTest } from '../support/roles/roles.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();
const createRole = rolesForEachTest(database);

/** Adds a column to nodes, and drops and recreates functions, which removes their rights. */
const GROW = `
alter table filestore.nodes add column if not exists tried_hint text;
alter table filestore.snapshots add column if not exists tried_hint text;
--!include views/view_filestore_active_nodes.sql
do $$
declare
  changed text;
  definition text;
begin
  foreach changed in array array['filestore.find_mount(text)', 'filestore.check_sequences()'] loop
    definition := pg_get_functiondef(changed::regprocedure);
    execute format('drop function %s', changed);
    execute definition;
    execute format('revoke all on function %s from public', changed);
  end loop;
end
$$;`;
/** Waits until the gate is open, and adds another column. */
const GROW_LATER = `
select pg_catalog.pg_advisory_xact_lock(101);
alter table filestore.nodes add column if not exists reviewed boolean;
alter table filestore.snapshots add column if not exists reviewed boolean;`;

/** What each level, but not the one below it, can do after GROW. */
const USES = {
  reader: [
    "select tried_hint from filestore.nodes where path = 'docs'",
    'select tried_hint from filestore.view_filestore_active_nodes',
    "select filestore.find_mount('main')",
  ],
  service: ["update filestore.nodes set tried_hint = 'ask Kim' where path = 'docs'"],
  operator: ['select * from filestore.check_sequences()'],
} as const;

const PROGRAM = join(PACKAGE_ROOT, 'node_modules', '.bin', 'graphile-migrate');

/** Ways to apply migrations. Each starts a process. */
const WAYS = {
  'the runner': (folder: string) =>
    startCli(['migrate'], { folder, env: { ...STAGED_ENVIRONMENT, DATABASE_URL: database().url } }),
  'graphile-migrate migrate': (folder: string) => graphileMigrate(folder, 'migrate'),
} as const;
const EACH_WAY = Object.entries(WAYS);

function graphileMigrate(folder: string, ...args: readonly string[]) {
  return spawn(process.execPath, [PROGRAM, ...args], {
    cwd: folder,
    env: {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      DATABASE_URL: database().url,
      SHADOW_DATABASE_URL: database().url.replace(database().name, `${database().name}_shadow`),
      ROOT_DATABASE_URL: inject('adminUrl'),
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

let grown: PackageCopy;
let grownTwice: PackageCopy;
let roles: Readonly<Record<AccessLevel, LoginRole>>;

beforeAll(() => {
  grown = copyPackage();
  grownTwice = copyPackage();
  for (const copy of [grown, grownTwice]) copy.addMigration('grow', withIncludes(GROW));
  grownTwice.addMigration('grow-later', GROW_LATER);
});
afterAll(() => {
  grown.remove();
  grownTwice.remove();
});

beforeEach(async () => {
  await database().query(`
    insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('main', 'local', '/main');
    select filestore.ensure_directory('main', 'docs')`);
  const [reader, service, operator] = [await createRole(), await createRole(), await createRole()];
  roles = { reader, service, operator };
  for (const level of ACCESS_LEVELS) {
    await database().query('select filestore.grant_access($1, $2)', [roles[level].name, level]);
  }
});

/** Runs the statements of each level as a role that may run them, and as one that may not. */
async function expectUsable(): Promise<void> {
  for (const [index, level] of ACCESS_LEVELS.entries()) {
    const client = await roles[level].connect();
    const allowed = ACCESS_LEVELS.slice(0, index + 1).flatMap((one) => USES[one]);
    for (const statement of allowed) await expect(client.query(statement)).resolves.toBeDefined();
    for (const statement of ACCESS_LEVELS.slice(index + 1).flatMap((one) => USES[one])) {
      await expect(client.query(statement)).rejects.toMatchObject({ code: '42501' });
    }
  }
  expect(await database().query('select * from filestore.check_access()')).toEqual([]);
}

async function canWrite(column: string): Promise<boolean> {
  const [row] = await database().query<{ can: boolean }>(
    `select has_column_privilege($1, 'filestore.nodes', $2, 'update') as can`,
    [roles.service.name, column],
  );
  return row?.can ?? false;
}

describe.each(EACH_WAY)('roles with a level, after %s', (_, start) => {
  test('can use new columns and recreated functions', async () => {
    expect(await collect(start(grown.folder))).toMatchObject({ exitCode: 0 });
    await expectUsable();
  });

  test('keep their rights when another role was dropped, whose level is removed', async () => {
    const gone = `${database().name}_gone`;
    await database().query(`create role ${gone}; select filestore.grant_access('${gone}', 'service')`);
    const superuser = await database().connectAsSuperuser();
    await superuser.query(`drop owned by ${gone}; drop role ${gone}`);
    const { exitCode, output } = await collect(start(grown.folder));
    expect(exitCode).toBe(0);
    if (start === WAYS['the runner']) {
      expect(output).toContain(
        `Warning: role "${gone}" no longer exists: its level service is removed from filestore.access_levels\n`,
      );
    }
    await expectUsable();
    const levels = await database().query('select role_name from filestore.access_levels');
    expect(levels.map(({ role_name }) => role_name).sort()).toEqual(
      ACCESS_LEVELS.map((level) => roles[level].name).sort(),
    );
  });

  test('can read recreated bookkeeping tables, and migrations renew rights as before', async () => {
    await database().query('drop schema graphile_migrate cascade');
    expect(await collect(start(PACKAGE_ROOT))).toMatchObject({ exitCode: 0 });
    const reader = await roles.reader.connect();
    await expect(reader.query('select * from graphile_migrate.migrations')).resolves.toBeDefined();
    expect(await database().query('select * from filestore.check_access()')).toEqual([]);
    expect(await collect(start(grown.folder))).toMatchObject({ exitCode: 0 });
    await expectUsable();
  });

  test('have their rights as soon as a migration is applied, whatever happens to the run', async () => {
    const gatekeeper = await database().connect();
    await closeGate(gatekeeper, 'midway');
    const child = start(grownTwice.folder);
    const ended = collect(child);
    await untilAtGate(gatekeeper, 'midway');
    await expectUsable();
    child.kill('SIGKILL');
    await ended;
    await expectUsable();
    await openGate(gatekeeper, 'midway');
    await until(() => isFree(gatekeeper));
    expect(await collect(start(grownTwice.folder))).toMatchObject({ exitCode: 0 });
    expect(await canWrite('reviewed')).toBe(true);
    await expectUsable();
  });

  test('have their rights when the run is killed after its last migration', async () => {
    const watcher = await database().connect();
    const [before] = await database().query<{ count: string }>(
      'select count(*) from graphile_migrate.migrations',
    );
    const child = start(grown.folder);
    const ended = collect(child);
    const seen = await until(async () => {
      const { rows } = await watcher.query<{ applied: boolean; can: boolean }>(
        `select
           (select count(*) from graphile_migrate.migrations) > $1 as applied,
           has_function_privilege($2, 'filestore.find_mount(text)', 'execute') as can`,
        [before?.count, roles.reader.name],
      );
      return rows[0]?.applied && rows[0];
    });
    child.kill('SIGKILL');
    expect(seen).toEqual({ applied: true, can: true });
    await ended;
    await expectUsable();
    expect(await collect(start(grown.folder))).toMatchObject({ exitCode: 0 });
    await expectUsable();
  });
});

test('roles with a level can use the objects that graphile-migrate watch and commit apply', async () => {
  const copy = copyPackage();
  try {
    editorOf(copy).write(GROW);
    expect(await collect(graphileMigrate(copy.folder, 'watch', '--once'))).toMatchObject({ exitCode: 0 });
    await expectUsable();
    expect(await collect(graphileMigrate(copy.folder, 'commit', '-m', 'Grow'))).toMatchObject({
      exitCode: 0,
    });
    await expectUsable();
  } finally {
    copy.remove();
  }
});

test('a migration whose rights cannot be granted is rolled back, and the error says why', async () => {
  const owner = await createRole();
  await database().query(`grant create on database ${database().name} to ${owner.quotedName}`);
  const tables = await database().query<{ name: string }>(
    `select format('alter %s %s owner to', case c.relkind when 'v' then 'view' else 'table' end, c.oid::regclass) as name
     from pg_class c
     where c.relnamespace in ('filestore'::regnamespace, 'graphile_migrate'::regnamespace) and c.relkind in ('r', 'v')
     union all
     select format('alter routine %s owner to', p.oid::regprocedure)
     from pg_proc p where p.pronamespace = 'filestore'::regnamespace
       -- Those of a range change with it.
       and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i')
     union all
     select format('alter type %s owner to', t.oid::regtype)
     from pg_type t where t.typnamespace = 'filestore'::regnamespace and t.typtype in ('d', 'r')
     union all
     select format('alter schema %I owner to', n.nspname)
     from pg_namespace n where n.nspname in ('filestore', 'graphile_migrate')`,
  );
  const superuser = await database().connectAsSuperuser();
  for (const { name } of tables) await superuser.query(`${name} ${owner.quotedName}`);
  const otherOwner = await createRole();
  await superuser.query(
    `create table filestore.stray (); alter table filestore.stray owner to ${otherOwner.quotedName}`,
  );
  const child = startCli(['migrate'], { folder: grown.folder, env: { DATABASE_URL: owner.url } });
  const { exitCode, stderr } = await collect(child);
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(
    /^MIGRATION_FAILED: Migration \d{6}-grow\.sql failed: the rights of role ".*" could not be granted again: permission denied for table stray \(SQLSTATE FS422\)\. The owner of the schema must own all objects in it\. .*It was rolled back\. Nothing was applied before it\./m,
  );
  expect(await database().query("select from pg_attribute where attname = 'tried_hint'")).toEqual([]);
});

/** The SQL as a migration that graphile-migrate commits. */
function withIncludes(sql: string): string {
  return sql.replace(/^--!include (.*)$/gm, (_, name: string) =>
    readFileSync(join(PACKAGE_ROOT, 'migrations', 'fixtures', name), 'utf8'),
  );
}

/** Whether all sessions of migrators have ended: one whose client was killed takes a moment. */
async function isFree(client: Client): Promise<boolean> {
  const { rows } = await client.query<{ free: boolean }>(
    `select not exists (
       select from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database()
       where l.locktype = 'advisory' and l.pid <> pg_backend_pid()
     ) as free`,
  );
  return rows[0]?.free ?? false;
}
