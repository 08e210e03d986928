import type pg from 'pg';
import type { FilledMount } from '../support/rows/fill-mount.ts';
import { summary } from '../support/rows/find-lost.ts';

export interface Comparison {
  /** What is lost, doubled or changed, one line each. */
  readonly faults: readonly string[];
  /** Rows of the source that the target has, by table. */
  readonly rows: Readonly<Record<string, number>>;
}

/** Checksums of rows by id and version. */
type Checksums = ReadonlyMap<string, string>;

/**
 * Compares every row of a mount that was closed on the source with the target, where services may have gone on: a
 * version that was superseded there since is in its history.
 */
export async function compareMounts(
  source: pg.Client,
  target: pg.Client,
  mount: FilledMount,
): Promise<Comparison> {
  const columns = await columnsOfNodes(source);
  const versions = `select id || '/' || version as key, md5(row(${columns})::text) as checksum from`;
  const mine = 'where backend_mount_id = $1';
  const read = (client: pg.Client, sql: string) => readChecksums(client, sql, mount.id);
  const sourceNodes = await read(source, `${versions} filestore.nodes ${mine}`);
  const sourceHistory = await read(source, `${versions} filestore.snapshots ${mine}`);
  const all = await read(target, `${versions} filestore.view_filestore_node_versions ${mine}`);
  const history = "select id || '/' || version as key, md5(s::text) as checksum from filestore.snapshots s";
  const ended =
    'select id::text as key, md5(j::text) as checksum from filestore.journal_entries j where completed_at is not null and backend_mount_id = $1';
  // What goes on keeps its request.
  const requests = `select id::text as key,
    md5(row(command, executor_kind, principal, request_id, correlation_id, idempotency_key, parameters, created_at)::text) as checksum
    from filestore.journal_entries ${mine}`;
  const sourceRequests = await read(source, requests);
  return {
    faults: [
      ...differences('nodes', sourceNodes, all),
      ...differences(
        'snapshots',
        await read(source, `${history} ${mine}`),
        await read(target, `${history} ${mine}`),
      ),
      ...differences('ended commands', await read(source, ended), await read(target, ended)),
      ...differences('commands', sourceRequests, await read(target, requests)),
      ...strangers(sourceNodes, sourceHistory, all),
    ],
    rows: { nodes: sourceNodes.size, snapshots: sourceHistory.size, journal_entries: sourceRequests.size },
  };
}

async function columnsOfNodes(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ columns: string }>(
    `select string_agg(quote_ident(attname), ', ' order by attnum) as columns from pg_attribute
     where attrelid = 'filestore.nodes'::regclass and attnum > 0 and not attisdropped`,
  );
  return rows[0]?.columns ?? '';
}

async function readChecksums(client: pg.Client, sql: string, mountId: string): Promise<Checksums> {
  const { rows } = await client.query<{ key: string; checksum: string }>(sql, [mountId]);
  const checksums = new Map(rows.map(({ key, checksum }) => [key, checksum]));
  if (checksums.size !== rows.length)
    throw new Error(`${rows.length - checksums.size} rows are doubled: ${sql}`);
  return checksums;
}

function differences(what: string, source: Checksums, target: Checksums): readonly string[] {
  const wrong = [...source].filter(([key, checksum]) => target.get(key) !== checksum);
  return summary(
    wrong.map(([key]) => key),
    `${what} are missing or differ on the target`,
  );
}

/** What the target has and the source does not must be newer. */
function strangers(nodes: Checksums, history: Checksums, target: Checksums): readonly string[] {
  const current = new Map([...nodes.keys()].map((key) => splitKey(key)));
  const wrong = [...target.keys()].filter((key) => {
    if (nodes.has(key) || history.has(key)) return false;
    const [id, version] = splitKey(key);
    const known = current.get(id);
    return known === undefined ? !isOfTarget(id) : version <= known;
  });
  return summary(wrong, 'versions on the target were never written');
}

const isOfTarget = (id: string) => BigInt(id) >> 40n === 2n;

function splitKey(key: string): readonly [id: string, version: number] {
  const [id = '', version = ''] = key.split('/');
  return [id, Number(version)];
}
