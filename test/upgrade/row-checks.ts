import type pg from 'pg';
import type { FilledMount } from '../support/rows/fill-mount.ts';
import { summary } from '../support/rows/find-lost.ts';
import type { ServedMount } from './service-messages.ts';

/** Rows that no service writes, by table: their number and a checksum of the columns that they had before the upgrade. */
export interface RowDigest {
  readonly of: string;
  readonly columns: string;
  readonly rows: string;
  readonly checksum: string | null;
}

/** Of the files that {@link fillMount} has created, and not of the directories of writers. */
const UNWRITTEN: Readonly<Record<string, string>> = {
  nodes: "backend_mount_id = $1 and path >= 'd' and path < 'e'",
  snapshots: "backend_mount_id = $1 and path >= 'd' and path < 'e'",
  journal_entries: "backend_mount_id = $1 and command = 'scan'",
};

export async function readDigests(client: pg.Client, mount: FilledMount): Promise<readonly RowDigest[]> {
  const digests: RowDigest[] = [];
  for (const of of Object.keys(UNWRITTEN)) {
    const { rows } = await client.query<{ columns: string }>(
      `select string_agg(quote_ident(attname), ', ' order by attnum) as columns from pg_attribute
       where attrelid = ('filestore.' || $1)::regclass and attnum > 0 and not attisdropped`,
      [of],
    );
    digests.push(await readDigest(client, mount, of, rows[0]?.columns ?? ''));
  }
  return digests;
}

async function readDigest(
  client: pg.Client,
  mount: FilledMount,
  of: string,
  columns: string,
): Promise<RowDigest> {
  const { rows } = await client.query<{ rows: string; checksum: string | null }>(
    `select count(*) as rows, sum(hashtextextended(row(${columns})::text, 0)::numeric)::text as checksum
     from filestore.${of} where ${UNWRITTEN[of]}`,
    [mount.id],
  );
  return { of, columns, rows: rows[0]?.rows ?? '', checksum: rows[0]?.checksum ?? null };
}

/** Compares the old columns of rows that no one wrote. */
export async function findChanged(
  client: pg.Client,
  mount: FilledMount,
  before: readonly RowDigest[],
): Promise<readonly string[]> {
  const faults: string[] = [];
  for (const digest of before) {
    const now = await readDigest(client, mount, digest.of, digest.columns);
    if (now.rows === digest.rows && now.checksum === digest.checksum) continue;
    faults.push(`the upgrade changed values of ${digest.of} (${digest.rows} rows before, ${now.rows} after)`);
  }
  return faults;
}

/** Every version of every node of a mount, and its commands, without ids and times, and without what differs between mounts. */
const CONTENT = `
  select md5(
    coalesce((
      select string_agg(r.text, ',' order by r.text)
      from filestore.view_filestore_node_versions v
      cross join lateral (
        select row(v.path, v.version, v.kind, v.size_bytes, v.checksum is null, v.state, v.live, v.metadata - 'rating')::text as text
      ) r
      where v.backend_mount_id = $1
    ), '')
    || (select count(*) || 'commands, succeeded ' || count(*) filter (where j.status = 'succeeded')
        from filestore.journal_entries j where j.backend_mount_id = $1)
  ) as content`;

/** Compares the mounts on which the old service worked, before and after the migrations, and those of the new one. */
export async function findDiffering(
  client: pg.Client,
  served: readonly ServedMount[],
): Promise<readonly string[]> {
  const keysOf = new Map<string, Map<string, string[]>>();
  for (const { group, key } of served) {
    // The id as a value: with a subquery for it, the planner reads the whole table.
    const mount = await client.query('select id from filestore.backend_mounts where mount_key = $1', [key]);
    const { rows } = await client.query<{ content: string }>(CONTENT, [mount.rows[0]?.id ?? null]);
    const contents = keysOf.get(group) ?? new Map<string, string[]>();
    keysOf.set(group, contents);
    const content = rows[0]?.content ?? '';
    contents.set(content, [...(contents.get(content) ?? []), key]);
  }
  // The most frequent content of each group is the right one.
  const others = [...keysOf.values()].flatMap((contents) =>
    [...contents.values()]
      .sort((one, other) => other.length - one.length)
      .slice(1)
      .flat(),
  );
  return summary(others, 'mounts differ from others on which the same was done');
}

/** What the database's own checks find. */
export async function findProblems(client: pg.Client, mount: FilledMount): Promise<readonly string[]> {
  const integrity = await client.query('select * from filestore.check_integrity()');
  const totals = await client.query('select * from filestore.audit_rollups($1)', [mount.key]);
  const backfills = await client.query(
    'select table_name, column_name from filestore.backfills where finished_at is null',
  );
  const all = { check_integrity: integrity, audit_rollups: totals, 'unfinished backfill': backfills };
  return Object.entries(all).flatMap(([name, { rows }]) =>
    rows.slice(0, 5).map((row) => `${name}: ${JSON.stringify(row)}`),
  );
}
