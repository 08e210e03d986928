import { randomBytes } from 'node:crypto';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { compilePackage } from '../../harness/compiled.ts';
import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { createOwner, dropOwner, testRole } from './roles/test-role.ts';
import { startTestServer } from './servers/test-server.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** URL of a database, as a role that may create databases and roles: an ordinary one with TEST_ROLE=owner. */
    adminUrl: string;
    /** URL of the same database as a superuser, for `asSuperuser`. */
    superuserUrl: string;
    /** Name of the migrated database that tests are cloned from; the names of the clones begin with it. */
    template: string;
  }
}

/** Starts one server per run, with one migrated database from which each test's database is cloned. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const [server, compiled] = await Promise.all([startTestServer(), compilePackage()]);
  const template = `filestore_test_${randomBytes(4).toString('hex')}`;
  const admin = new pg.Client(server.adminUrl);
  await admin.connect();
  const { rows } = await admin.query("select current_setting('server_version') as version");
  const role = testRole();
  console.log(`Tests run on ${server.name}, PostgreSQL ${rows[0].version}, as ${role}`);

  const adminUrl =
    role === 'owner' ? await createOwner(admin, server.adminUrl, `${template}_owner`) : server.adminUrl;
  await withClient(adminUrl, (client) =>
    client.query(`create database ${template} encoding 'UTF8' template template0`),
  );
  await runMigrations({ connection: connectionTo(databaseUrl(adminUrl, template)) });
  project.provide('adminUrl', adminUrl);
  project.provide('superuserUrl', server.adminUrl);
  project.provide('template', template);

  return async () => {
    const { rows: left } = await admin.query(
      'select datname from pg_database where starts_with(datname, $1)',
      [template],
    );
    for (const { datname } of left) await admin.query(`drop database "${datname}" with (force)`);
    if (role === 'owner') await dropOwner(admin, `${template}_owner`);
    await admin.end();
    await server.stop();
    compiled.remove();
  };
}
