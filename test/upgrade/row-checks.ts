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

/**
 * Every version of every node of each mount, and its commands, without ids and times, and without what differs between mounts.
 * It reads each table once: no index finds the versions of one mount.
 */
const CONTENTS = `
  with served as materialized (
    select s.content_group, s.key, m.id
    from unnest($1::text[], $2::text[]) s (content_group, key)
    left join filestore.backend_mounts m on m.mount_key = s.key
  ),
  versions as (
    select v.backend_mount_id, string_agg(r.text, ',' order by r.text) as content
    from filestore.view_filestore_node_versions v
    cross join lateral (
      select row(v.path, v.version, v.kind, v.size_bytes, v.checksum is null, v.state, v.live, v.metadata - 'rating')::text as text
    ) r
    where v.backend_mount_id in (select id from served)
    group by v.backend_mount_id
  ),
  commands as (
    select j.backend_mount_id, count(*) || 'commands, succeeded ' || count(*) filter (where j.status = 'succeeded') as content
    from filestore.journal_entries j
    where j.backend_mount_id in (select id from served)
    group by j.backend_mount_id
  )
  select s.content_group, s.key, md5(concat(v.content, c.content)) as content
  from served s
  left join versions v on v.backend_mount_id = s.id
  left join commands c on c.backend_mount_id = s.id`;

/** Compares the mounts on which the old service worked, before and after the migrations, and those of the new one. */
export async function findDiffering(
  client: pg.Client,
  served: readonly ServedMount[],
): Promise<readonly string[]> {
  const { rows } = await client.query<{ content_group: string; keys: readonly string[] }>(
    `select content_group, array_agg(key order by key) as keys
     from (${CONTENTS}) c group by content_group, content order by content_group, count(*) desc, content`,
    [served.map(({ group }) => group), served.map(({ key }) => key)],
  );
  // The first content of each group is the most frequent one.
  const others = rows.filter(({ content_group }, index) => content_group === rows[index - 1]?.content_group);
  return summary(
    others.flatMap(({ keys }) => keys),
    'mounts differ from others on which the same was done',
  );
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
