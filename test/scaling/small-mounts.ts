import type { NumberedDatabase, TwoDatabases } from './two-databases.ts';
import { MoveWalk } from './walk-move.ts';

let made = 0;

/** A mount with something in each table that a move carries. */
export async function createSmallMount({ query }: Pick<NumberedDatabase, 'query'>): Promise<string> {
  made += 1;
  const key = `mount-${made}`;
  await query(
    "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ($1, 'local', '/srv/' || $1)",
    [key],
  );
  await query("select filestore.upsert_file($1, 'd/f' || g, g) from generate_series(1, 3) g", [key]);
  await query("select filestore.upsert_file($1, 'd/f1', 7)", [key]);
  const mount = 'from filestore.backend_mounts m where m.mount_key = $1';
  const begin = "filestore.begin_command('scan', mount_id => m.id)";
  await query(`select ${begin} ${mount}`, [key]);
  await query(`select filestore.finish_command(((${begin}).entry).id, 'succeeded', '{}') ${mount}`, [key]);
  const nodes = `array(select n.id from filestore.nodes n where n.backend_mount_id in (select m.id ${mount}))`;
  await query(`select filestore.record_sightings(${nodes})`, [key]);
  return key;
}

/** A move of a new mount from the first database to the second, or back. */
export async function newWalk(databases: TwoDatabases, way: 'there' | 'back' = 'there'): Promise<MoveWalk> {
  const { one, two } = databases;
  const [source, target] = way === 'there' ? [one, two] : [two, one];
  return new MoveWalk(databases, await createSmallMount(source), source, target);
}

/** Which of the two databases take a write to the mount. The writes are undone. */
export async function takersOf({ key, source, target }: MoveWalk): Promise<string> {
  const takers: string[] = [];
  for (const database of [source, target]) {
    await database.query('begin');
    const isTaken = await database.query("select filestore.upsert_file($1, 'd/new', 9)", [key]).then(
      () => true,
      () => false,
    );
    await database.query('rollback');
    if (isTaken) takers.push(database === source ? 'source' : 'target');
  }
  return takers.join();
}

const ROWS: Readonly<Record<string, string>> = {
  nodes: 'backend_mount_id = $1',
  snapshots: 'backend_mount_id = $1',
  journal_entries: 'backend_mount_id = $1',
  node_sightings: 'node_id in (select n.id from filestore.nodes n where n.backend_mount_id = $1)',
};

/** A checksum of all rows of a mount, by table. */
export async function rowsOf(
  database: Pick<NumberedDatabase, 'query'>,
  mountId: unknown,
): Promise<Readonly<Record<string, string>>> {
  const found: Record<string, string> = {};
  for (const [table, condition] of Object.entries(ROWS)) {
    const [row] = await database.query<{ rows: string }>(
      `select count(*) || ' ' || md5(coalesce(string_agg(t::text, ';' order by t::text collate "C"), '')) as rows
       from filestore.${table} t where ${condition}`,
      [mountId],
    );
    found[table] = row?.rows ?? '';
  }
  return found;
}

export const NO_ROWS = Object.fromEntries(
  Object.keys(ROWS).map((table) => [table, '0 d41d8cd98f00b204e9800998ecf8427e']),
);

const RESTORES = {
  'before the move': `delete from filestore.node_sightings s using filestore.nodes n where n.id = s.node_id and n.backend_mount_id = :id;
    delete from filestore.rollups r using filestore.nodes n where n.id = r.node_id and n.backend_mount_id = :id;
    delete from filestore.snapshots where backend_mount_id = :id;
    delete from filestore.journal_entries where backend_mount_id = :id;
    delete from filestore.nodes where backend_mount_id = :id;
    delete from filestore.backend_mounts where id = :id;
    delete from filestore.moves where mount_id = :id`,
  'during the move': `update filestore.moves set step = 'proved', finished_at = null where mount_id = :id;
    update filestore.backend_mounts set held_by = :source where id = :id`,
} as const;

/** Statements that bring a finished target to what a backup of that time has. For a superuser. */
export function restoreOf(backup: keyof typeof RESTORES, mountId: unknown, source: number): string {
  const statements = RESTORES[backup].replaceAll(':id', `${mountId}`).replaceAll(':source', `${source}`);
  return `begin; set local session_replication_role = replica; ${statements}; commit`;
}
