import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { closePool, getPool, withTransaction } from '../../src/index.ts';
import {
  beginCommand,
  beginWork,
  createNode,
  finishCommand,
  listDirectory,
  moveNode,
  nodeByPath,
} from '../../src/sql/index.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { rolesForEachTest } from '../support/roles/roles.ts';
import { createMount, one } from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();
let ownPool: pg.Pool;
const createRole = rolesForEachTest(database);
let copy: PackageCopy;
let parentId: string;
let mountKey: string;

beforeEach(async () => {
  copy = copyPackage();
  const mount = await createMount(database());
  parentId = mount.rootId;
  mountKey = (await one(database(), 'select mount_key from filestore.backend_mounts')).mount_key;
  const role = await createRole();
  await database().query("select filestore.grant_access($1, 'service')", [role.name]);
  vi.stubEnv('FILESTORE_DATABASE_URL', role.url);
  vi.stubEnv('FILESTORE_PGPOOL_MAX', '8');
  ownPool = new pg.Pool({ connectionString: role.url, max: 2 });
});
afterEach(async () => {
  copy.remove();
  await closePool();
  await ownPool.end();
  vi.unstubAllEnvs();
});

async function callTyped(pool: pg.Pool, name: string): Promise<object | undefined> {
  await createNode(pool, { parentId, name });
  await listDirectory(pool, { directoryId: parentId, pageSize: 5 });
  return nodeByPath(pool, { mountKey, path: name });
}

/** What a service does, as a function of a new name. Each returns a row that a new column belongs to. */
const SERVICE: Readonly<Record<string, (name: string) => Promise<object | undefined>>> = {
  'typed calls': (name) => callTyped(getPool(), name),
  'typed calls on another pool': (name) => callTyped(ownPool, name),
  'a command with typed calls in a transaction': async (name) => {
    const { entry } = await beginCommand(getPool(), { command: 'rename' });
    return withTransaction(async (client) => {
      await beginWork(client, { entryId: entry.id });
      const { id: nodeId } = await createNode(client, { parentId, name });
      const moved = await moveNode(client, { nodeId, newName: `${name} moved` });
      await finishCommand(client, { entryId: entry.id, status: 'succeeded', affectedNodeIds: [nodeId] });
      return moved;
    });
  },
  'plain SQL': async (name) => {
    const { rows } = await getPool().query(
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
       select backend_mount_id, id, $2, 'file' from filestore.nodes where id = $1 returning *`,
      [parentId, name],
    );
    return rows[0];
  },
  'named statements': async (name) => {
    const { rows } = await getPool().query({
      name: 'create',
      text: 'select * from filestore.create_node($1, $2)',
      values: [parentId, name],
    });
    await getPool().query({
      name: 'list',
      text: 'select * from filestore.view_filestore_active_nodes where parent_id = $1 limit 5',
      values: [parentId],
    });
    return rows[0];
  },
  'named statements in a transaction with retries': (name) =>
    withTransaction(
      async (client) => {
        const { rows } = await client.query({
          name: 'insert',
          text: `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
                 select backend_mount_id, id, $2, 'file' from filestore.nodes where id = $1 returning *`,
          values: [parentId, name],
        });
        return rows[0];
      },
      { retries: 3 },
    ),
};

/** Repeats work until it is stopped. Each success counts, before and after the row has the new column. */
function repeat(work: (name: string) => Promise<object | undefined>, name: string) {
  const errors: unknown[] = [];
  const counts = { before: 0, after: 0 };
  let stopped = false;
  const loop = async () => {
    for (let turn = 0; !stopped; turn += 1) {
      await work(`${name} ${turn}`).then(
        (row) => {
          counts['media_type' in (row ?? {}) ? 'after' : 'before'] += 1;
        },
        (error: unknown) => errors.push(error),
      );
    }
  };
  const ended = loop();
  const stop = async () => {
    stopped = true;
    await ended;
  };
  return { errors, counts, stop };
}

test('the pool and typed calls work without an error while a migration adds a column of nodes', async () => {
  const view = (name: string) =>
    readFileSync(join(copy.folder, 'migrations', 'fixtures', 'views', `${name}.sql`), 'utf8');
  const filename = copy.addMigration(
    'media-type',
    `alter table filestore.nodes     add column if not exists media_type text;
     alter table filestore.snapshots add column if not exists media_type text;
     ${view('view_filestore_active_nodes')}
     ${view('view_filestore_node_versions')}`,
  );
  // Twice each, so that several sessions prepare each statement.
  const workers = ['one', 'two'].flatMap((name) =>
    Object.entries(SERVICE).map(([what, work]) => repeat(work, `${name} ${what}`)),
  );
  try {
    await until(() => workers.every(({ counts }) => counts.before >= 10));
    const run = await runCli(['migrate'], { folder: copy.folder, env: { DATABASE_URL: database().url } });
    expect(run.output).toContain(filename);
    expect(run.exitCode).toBe(0);
    await until(() => workers.every(({ counts, errors }) => errors.length > 0 || counts.after >= 20));
  } finally {
    await Promise.all(workers.map(({ stop }) => stop()));
  }
  expect(workers.flatMap(({ errors }) => errors)).toEqual([]);
  // No work was done twice or lost.
  const { count } = await one(
    database(),
    'select count(*)::integer as count from filestore.nodes where parent_id is not null',
  );
  expect(count).toBe(workers.reduce((sum, { counts }) => sum + counts.before + counts.after, 0));
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
});
