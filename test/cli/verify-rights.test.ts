import { describe, expect, test } from 'vitest';
import { ACCESS_LEVELS } from '../../src/access-levels.ts';
import { verifySchema } from '../../src/index.ts';
import { jsonCommand } from '../support/command-line/answers.ts';
import { takePicture } from '../support/databases/picture.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { type LoginRole, rolesForEachTest } from '../support/roles/roles.ts';
import { one } from '../support/rows/nodes.ts';

const database = databaseForEachTest();

const createRole = rolesForEachTest(database);
const grantAccess = ({ name }: LoginRole, level: string) =>
  database().query('select filestore.grant_access($1, $2)', [name, level]);
const verify = (url = database().url) => verifySchema({ connectionString: url });

async function differences(url: string): Promise<readonly string[]> {
  const check = await verify(url);
  return check.state === 'drifted' ? check.differences : [];
}

describe('rights of roles', () => {
  async function expectDrift(...lines: readonly string[]): Promise<void> {
    const before = await takePicture(database());
    expect(await verify()).toMatchObject({ state: 'drifted', differences: lines });
    expect(await takePicture(database())).toEqual(before);
  }

  /** Runs the statement at the end of each line. Together they must remove all differences. */
  async function expectRemedies(): Promise<void> {
    const { superuserUrl, connectAsSuperuser } = database();
    const superuser = await connectAsSuperuser();
    for (const line of await differences(superuserUrl)) {
      await superuser.query(line.slice(line.lastIndexOf(': ') + 2));
    }
    expect(await verify(superuserUrl)).toMatchObject({ state: 'same' });
  }

  test('have no difference for a role of each level', async () => {
    for (const level of ACCESS_LEVELS) await grantAccess(await createRole(), level);
    expect(await verify()).toMatchObject({ state: 'same' });
  });

  test('beyond a level are listed with the statement that revokes them', async () => {
    const { name } = await createRole();
    await database().query(`select filestore.grant_access('${name}', 'service')`);
    await database().query(`grant delete on filestore.snapshots to ${name}`);
    await database().query(`grant update (version, id) on filestore.nodes to ${name}`);
    await database().query(`grant create on schema filestore to ${name}`);
    await database().query(`grant execute on function filestore.purge_deleted to ${name}`);
    const { purge } = await one(
      database(),
      "select 'filestore.purge_deleted'::regproc::regprocedure::text as purge",
    );
    const beyond = (right: string, revoke: string) =>
      `role "${name}" has ${right}, beyond its level service. Revoke it: ${revoke} from ${name}`;
    await expectDrift(
      beyond(
        'UPDATE on columns id, version of table filestore.nodes',
        'revoke update (id, version) on table filestore.nodes',
      ),
      beyond(`EXECUTE on function ${purge}`, `revoke execute on function ${purge}`),
      beyond('CREATE on schema filestore', 'revoke create on schema filestore'),
      beyond('DELETE on table filestore.snapshots', 'revoke delete on table filestore.snapshots'),
    );
    await expectRemedies();
  });

  test('that a role lacks are listed with the statement that grants them', async () => {
    const { name } = await createRole();
    await database().query(`select filestore.grant_access('${name}', 'service')`);
    await database().query(`revoke update (size_bytes, name) on filestore.nodes from ${name}`);
    await database().query(`revoke execute on function filestore.begin_work from ${name}`);
    const { begin } = await one(
      database(),
      "select 'filestore.begin_work'::regproc::regprocedure::text as begin",
    );
    const lacks = (right: string) =>
      `role "${name}" lacks ${right}, which level service has. Grant it: select filestore.grant_access('${name}', 'service')`;
    await expectDrift(
      lacks('UPDATE on columns name, size_bytes of table filestore.nodes'),
      lacks(`EXECUTE on function ${begin}`),
    );
    await expectRemedies();
  });

  test('of a role without a level are listed, after the differences of the schema', async () => {
    const { name, quotedName } = await createRole(' "Café"');
    await database().query(`grant select on filestore.nodes to ${quotedName}`);
    await database().query('drop index filestore.nodes_checksum_idx');
    await expectDrift(
      expect.stringMatching(/^index filestore\.nodes_checksum_idx is missing: USING btree/),
      `role "${name}" has SELECT on table filestore.nodes, but no level. Give it one (select filestore.grant_access('${name}', 'reader')), or revoke it: revoke select on table filestore.nodes from ${quotedName}`,
    );
  });

  test('that a role gets by membership beyond its level are listed, directly and through other roles', async () => {
    const [other, reader, service, team] = [
      await createRole(),
      await createRole(),
      await createRole(),
      await createRole('_team'),
    ];
    await grantAccess(other, 'reader');
    await grantAccess(reader, 'reader');
    await grantAccess(service, 'service');
    // A role of a lower level gives its members nothing.
    const superuser = await database().connectAsSuperuser();
    await superuser.query(`grant ${other.name} to ${service.name}`);
    expect(await verify()).toMatchObject({ state: 'same' });
    await superuser.query(`grant pg_write_all_data to ${service.name}`);
    await superuser.query(`grant ${service.name} to ${team.name}; grant ${team.name} to ${reader.name}`);
    const line = (role: LoginRole, other: string, level: string) =>
      `role "${role.name}" is a member of role ${other}, by which it may do more than its level ${level} allows. Revoke it: revoke ${other} from ${role.name}`;
    await expectDrift(line(reader, team.name, 'reader'), line(service, 'pg_write_all_data', 'service'));
    await expectRemedies();
  });

  test('of the owner are listed for a member that has a level, even if it has to switch roles', async () => {
    const [owner, reader, boss] = [await createRole(), await createRole(), await createRole('_boss')];
    const superuser = await database().connectAsSuperuser();
    const grant = (role: LoginRole, level: string) =>
      superuser.query('select filestore.grant_access($1, $2)', [role.name, level]);
    await superuser.query(`alter schema filestore owner to ${owner.name}`);
    await grant(reader, 'reader');
    await superuser.query(`alter role ${reader.name} noinherit; grant ${owner.name} to ${reader.name}`);
    await grant(boss, 'operator');
    await superuser.query(`alter role ${boss.name} superuser`);
    expect(await differences(database().superuserUrl)).toEqual(
      expect.arrayContaining([
        `role "${reader.name}" is a member of role ${owner.name}, by which it may do more than its level reader allows. Revoke it: revoke ${owner.name} from ${reader.name}`,
        `role "${boss.name}" is a superuser, so it may do more than its level operator allows. Change it: alter role ${boss.name} nosuperuser`,
        expect.stringMatching(
          `^table filestore\\.nodes belongs to role ".*", not to the owner of the schema\\. Change its owner: alter table filestore\\.nodes owner to ${owner.name}$`,
        ),
        expect.stringMatching(/^domain filestore\.node_kind belongs to role /),
        expect.stringMatching(/^function filestore\.check_name\(text\) belongs to role /),
      ]),
    );
    await expectRemedies();
  });

  test.each(['schema', 'database'])('of a role that owns the %s are listed', async (kind) => {
    const role = await createRole();
    await grantAccess(role, 'operator');
    const superuser = await database().connectAsSuperuser();
    const object = kind === 'schema' ? 'filestore' : database().name;
    const { owner } = await one(
      database(),
      "select relowner::regrole::text as owner from pg_class where oid = 'filestore.nodes'::regclass",
    );
    await superuser.query(`alter ${kind} ${object} owner to ${role.quotedName}`);
    const found = await differences(database().superuserUrl);
    expect(found).toContain(
      `role "${role.name}" owns the ${kind} ${object}, so it may do more than its level operator allows. Give it another owner: alter ${kind} ${object} owner to ${owner}`,
    );
    expect(found.filter((line) => line.includes('belongs to role'))).toEqual([]);
    // With its owner, the schema loses the right of the level, which cannot be granted to an owner.
    await superuser.query(`alter ${kind} ${object} owner to ${owner}`);
    await expectRemedies();
  });

  test('are listed with the setting of this session that switches guards off', async () => {
    const url = new URL(database().superuserUrl);
    url.searchParams.set('options', '-c session_replication_role=replica');
    expect(await differences(url.href)).toEqual([
      'session_replication_role is "replica" here, by the settings of the server or the options of the connection, so no guard works in such sessions. Remove it from the options, or run: alter system reset session_replication_role',
    ]);
  });

  test('by which a role can get more rights are listed', async () => {
    const [service, other] = [await createRole(), await createRole('_other')];
    await grantAccess(service, 'service');
    const { owner, version } = await one(
      database(),
      "select quote_ident(current_user) as owner, current_setting('server_version_num') as version",
    );
    const superuser = await database().connectAsSuperuser();
    await superuser.query(`
      grant select on filestore.nodes to ${service.name} with grant option;
      grant create on schema graphile_migrate to public;
      grant trigger on graphile_migrate.migrations to ${service.name};
      grant pg_execute_server_program to ${service.name};
      grant set on parameter session_replication_role to ${service.name};
      alter role ${service.name} createrole;
      alter role ${service.name} set session_replication_role = 'Replica';
      create table graphile_migrate.extra ();
      alter table graphile_migrate.extra owner to ${other.name}`);
    const { name } = service;
    expect(new Set(await differences(database().superuserUrl))).toEqual(
      new Set([
        `table graphile_migrate.extra belongs to role "${other.name}", not to the owner of the schema. Change its owner: alter table graphile_migrate.extra owner to ${owner}`,
        `role "PUBLIC" has CREATE on schema graphile_migrate, which only the role that migrates needs. Revoke it: revoke create on schema graphile_migrate from public`,
        `role "${name}" has TRIGGER on table graphile_migrate.migrations, which only the role that migrates needs. Revoke it: revoke trigger on table graphile_migrate.migrations from ${name}`,
        `role "${name}" has GRANT OPTION FOR SELECT on table filestore.nodes, beyond its level service. Revoke it: revoke grant option for select on table filestore.nodes from ${name} cascade`,
        `role "${name}" is a member of role pg_execute_server_program, by which it may do more than its level service allows. Revoke it: revoke pg_execute_server_program from ${name}`,
        `role "${name}" may set session_replication_role, which switches all guards off. Revoke it: revoke set, alter system on parameter session_replication_role from ${name}`,
        `session_replication_role is "replica" for role ${name}, so no guard works in these sessions. Change it: alter role ${name} reset session_replication_role`,
        ...(Number(version) < 160_000
          ? [
              `role "${name}" has CREATEROLE, so it may do more than its level service allows. Change it: alter role ${name} nocreaterole`,
            ]
          : []),
      ]),
    );
    await expectRemedies();
    await superuser.query('drop table graphile_migrate.extra');
  });

  test('that were granted to a role which no longer exists, or was replaced by another of its name, are listed', async () => {
    const [gone, replaced] = [await createRole(), await createRole()];
    await grantAccess(gone, 'reader');
    await grantAccess(replaced, 'service');
    const superuser = await database().connectAsSuperuser();
    await superuser.query(`drop owned by ${gone.quotedName}, ${replaced.quotedName}`);
    for (const { quotedName } of [gone, replaced]) {
      await database().query(`drop role ${quotedName}`);
      await database().query(`create role ${quotedName}`);
    }
    await database().query(`drop role ${gone.quotedName}`);
    try {
      await expectDrift(
        `role "${gone.name}" does not exist, but has level reader. Remove the level: select filestore.revoke_access('${gone.name}')`,
        `role "${replaced.name}" is not the role that got level service: that one was dropped, or the database was restored. Remove the level with filestore.revoke_access, or grant it to the role that exists now: select filestore.grant_access('${replaced.name}', 'service')`,
      );
      await expectRemedies();
    } finally {
      await database().query(`create role ${gone.quotedName}`);
    }
  });

  test('that migrations no longer renew are a difference', async () => {
    await database().query('drop trigger migrations_renew_access on graphile_migrate.migrations');
    await database().query('alter table graphile_migrate.current disable trigger all');
    const line = (table: string) =>
      `graphile_migrate.${table} has no trigger that renews rights, so a migration can remove rights. Attach it again: select filestore.attach_renewal()`;
    await expectDrift(line('current'), line('migrations'));
    await expectRemedies();
  });

  test('that the role may not compare are never reported as the same', async () => {
    const watcher = await createRole();
    await database().query(`grant usage on schema graphile_migrate to ${watcher.name}`);
    await database().query(`grant select on graphile_migrate.migrations to ${watcher.name}`);
    const refusal = `Could not check rights: role "${watcher.name}" may not call filestore.check_access(). Let the owner of the schema run: select filestore.grant_access('${watcher.name}', 'reader').`;
    expect(await jsonCommand(['verify'], watcher.url)).toMatchObject({
      exitCode: 1,
      document: {
        ok: false,
        state: 'unchecked',
        reason: `The objects of the schema match. ${refusal}`,
      },
    });
    await database().query('drop index filestore.nodes_checksum_idx');
    expect(await jsonCommand(['verify'], watcher.url)).toMatchObject({
      exitCode: 4,
      document: { state: 'drifted', notes: expect.arrayContaining([refusal]) },
    });
  });

  test('are reported as not checked when the function is missing', async () => {
    await database().query('drop function filestore.check_access()');
    const { exitCode, document, output } = await jsonCommand(['verify'], database().url);
    expect({ exitCode, document }).toMatchObject({
      exitCode: 4,
      document: {
        differences: [expect.stringMatching(/^function filestore\.check_access\(\) is missing/)],
        notes: expect.arrayContaining([
          expect.stringMatching(/^Could not check rights: the database has no/),
        ]),
      },
    });
    expect(output).toContain('Note: Could not check rights');
  });

  test('that the server fails to compare are never reported as the same', async () => {
    const reader = await createRole();
    await grantAccess(reader, 'reader');
    await database().query(`revoke select on filestore.access_levels from ${reader.name}`);
    expect(await jsonCommand(['verify'], reader.url)).toMatchObject({
      exitCode: 1,
      document: {
        state: 'unchecked',
        reason: expect.stringMatching(/Could not check rights: .*permission denied/),
      },
    });
  });
});
