/**
 * Catalogues a directory tree into a local mount: one statement for the directories of each level, one for
 * each batch of files. A second run writes only changes.
 *
 *   npm run example -- [folder]        default: node_modules
 *
 * Uses the database of the environment, or the embedded one.
 */
import { realpath } from 'node:fs/promises';
import { basename } from 'node:path';
import type { PoolClient } from 'pg';
import { openEmbedded } from '../dev/embedded/embedded.ts';
import { closePool, runMigrations, serviceConnection, withConnection } from '../src/index.ts';
import { timeBareCopy } from './bare-copy.ts';
import { type Entry, walk } from './walk.ts';

const BATCH = 5_000;

interface Mount {
  readonly id: string;
  readonly key: string;
  readonly rootId: string;
}

/** Ids of the directories that are catalogued, by path. */
type Directories = Map<string, string>;

async function main(folder: string): Promise<void> {
  const root = await realpath(folder);
  console.log(`Walking ${root} …`);
  const { directories, files, skipped } = await walk(root);
  console.log(`Found ${count(files.length, 'file')} in ${count(directories.length, 'directory')}.`);
  for (const [reason, number] of skipped) console.log(`Left out: ${number} × ${reason}.`);

  await withConnection(async (client) => {
    const mount = await openMount(client, root);
    const startedAt = performance.now();
    const known = await catalogueDirectories(client, mount, directories);
    await catalogueFiles(client, mount, known, files);
    const seconds = (performance.now() - startedAt) / 1000;

    const rows = directories.length + files.length;
    const copySeconds = await timeBareCopy(client, files);
    const rate = rows / seconds;
    const copyRate = files.length / copySeconds;
    console.log(
      `Catalogued ${rows} rows in ${seconds.toFixed(2)} s: ${Math.round(rate)} rows/s, with all rules, keys and indexes.`,
    );
    console.log(
      `A copy of the files into a table without rules, keys and indexes: ${Math.round(copyRate)} rows/s (${(copyRate / rate).toFixed(1)} times as fast).`,
    );
    await report(client, mount);
    await lookUp(client, mount, files);
  });
}

/** The existing mount of a folder, or a new one. */
async function openMount(client: PoolClient, root: string): Promise<Mount> {
  await client.query(
    `insert into filestore.backend_mounts (mount_key, backend_kind, root_path)
     values ($1, 'local', $2)
     on conflict do nothing`,
    [
      `${basename(root).replace(/[^A-Za-z0-9._-]/g, '-') || 'root'}-${Date.now()}`.replace(
        /^[^A-Za-z0-9]+/,
        '',
      ),
      root,
    ],
  );
  const { rows } = await client.query<Mount>(
    `select m.id, m.mount_key as key, n.id as "rootId"
     from filestore.backend_mounts m
     join filestore.nodes n on n.root_of_mount_id = m.id
     where m.backend_kind = 'local' and m.root_path = $1`,
    [root],
  );
  if (rows[0] === undefined) throw new Error(`no mount for ${root}`);
  return rows[0];
}

/** Level by level, since a directory needs its parent's id. */
async function catalogueDirectories(
  client: PoolClient,
  mount: Mount,
  directories: readonly Entry[],
): Promise<Directories> {
  const known: Directories = new Map([['', mount.rootId]]);
  const deepest = directories.at(-1)?.depth ?? 0;
  for (let level = 1; level <= deepest; level += 1) {
    for (const batch of batches(directories.filter(({ depth }) => depth === level))) {
      await client.query(
        `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, last_modified_at)
         select $1, d.parent_id, d.name, 'directory', d.modified
         from unnest($2::bigint[], $3::text[], $4::timestamptz[]) as d (parent_id, name, modified)
         on conflict do nothing`,
        [mount.id, ...columnsOf(batch, known)],
      );
    }
    const { rows } = await client.query<{ readonly id: string; readonly path: string }>(
      `select id, path from filestore.nodes
       where backend_mount_id = $1 and kind = 'directory' and live and depth = $2`,
      [mount.id, level],
    );
    for (const { id, path } of rows) known.set(path, id);
  }
  return known;
}

/** With parent_path given, the trigger does not look the parent up, and the foreign key checks the path. */
async function catalogueFiles(
  client: PoolClient,
  mount: Mount,
  known: Directories,
  files: readonly Entry[],
): Promise<void> {
  let done = 0;
  for (const batch of batches(files)) {
    await client.query(
      `insert into filestore.nodes
         (backend_mount_id, parent_id, parent_path, name, kind, size_bytes, last_modified_at, link_target)
       select $1, f.parent_id, f.parent_path, f.name, 'file', f.size, f.modified, f.link_target
       from unnest($2::bigint[], $3::text[], $4::timestamptz[], $5::text[], $6::bigint[], $7::text[])
         as f (parent_id, name, modified, parent_path, size, link_target)
       on conflict (parent_id, name) where parent_live is not null
       do update
       set size_bytes       = excluded.size_bytes,
           last_modified_at = excluded.last_modified_at,
           link_target      = excluded.link_target
       where (nodes.size_bytes, nodes.last_modified_at, nodes.link_target)
         is distinct from (excluded.size_bytes, excluded.last_modified_at, excluded.link_target)`,
      [
        mount.id,
        ...columnsOf(batch, known),
        batch.map(({ parentPath }) => parentPath),
        batch.map(({ size }) => size),
        batch.map(({ linkTarget }) => linkTarget),
      ],
    );
    done += batch.length;
    console.log(`  ${done} of ${count(files.length, 'file')}`);
  }
}

async function report(client: PoolClient, mount: Mount): Promise<void> {
  const { rows } = await client.query<{
    readonly kind: string;
    readonly nodes: string;
    readonly bytes: string;
    readonly deepest: number;
  }>(
    `select kind, count(*) as nodes, sum(size_bytes) as bytes, max(depth) as deepest
     from filestore.nodes
     where backend_mount_id = $1 and live
     group by kind
     order by kind`,
    [mount.id],
  );
  console.log(`Mount "${mount.key}" now holds:`);
  for (const { kind, nodes, bytes, deepest } of rows) {
    console.log(`  ${nodes} ${kind} nodes, ${bytes} bytes, at most ${deepest} levels deep`);
  }
}

async function lookUp(client: PoolClient, mount: Mount, files: readonly Entry[]): Promise<void> {
  const wanted = [files[0], files[Math.floor(files.length / 2)], files.at(-1)].flatMap((file) =>
    file ? [file] : [],
  );
  for (const { path } of wanted) {
    const startedAt = performance.now();
    const { rows } = await client.query(
      `select id, size_bytes, location from filestore.view_filestore_active_nodes
       where mount_key = $1 and path = $2`,
      [mount.key, path],
    );
    const milliseconds = (performance.now() - startedAt).toFixed(1);
    console.log(
      `${path}\n  node ${rows[0].id}, ${rows[0].size_bytes} bytes, ${rows[0].location} (${milliseconds} ms)`,
    );
  }
}

function columnsOf(batch: readonly Entry[], known: Directories) {
  return [
    batch.map(({ parentPath }) => known.get(parentPath)),
    batch.map(({ name }) => name),
    batch.map(({ modified }) => modified),
  ];
}

function* batches<T>(values: readonly T[]): Generator<readonly T[]> {
  for (let start = 0; start < values.length; start += BATCH) yield values.slice(start, start + BATCH);
}

function count(number: number, noun: string): string {
  return `${number} ${number === 1 ? noun : noun.replace(/y$/, 'ie').concat('s')}`;
}

const embedded = serviceConnection() === undefined ? await openEmbedded() : undefined;
if (embedded !== undefined) process.env.FILESTORE_DATABASE_URL = embedded.url;
try {
  await runMigrations();
  await main(process.argv[2] ?? 'node_modules');
} catch (error) {
  // The message describes the error; a stack trace would only hide it.
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  await closePool();
  await embedded?.close();
}
