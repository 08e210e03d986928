import type { Client } from 'pg';
import { refresh, type Scene } from './known-nodes.ts';

/** Creates roles, two mounts and a small tree, and a record of purged nodes for the checker. */
export async function prepare(admin: Client, password: string, withoutTreeLock: boolean): Promise<Scene> {
  for (const level of ['service', 'operator']) {
    await admin.query(`create role torture_${level} login password ${admin.escapeLiteral(password)}`);
    await admin.query('select filestore.grant_access($1, $2)', [`torture_${level}`, level]);
  }
  if (withoutTreeLock) {
    await admin.query(`
      create or replace function filestore.lock_tree(mount_id bigint, exclusive boolean) returns void
      language plpgsql as $$ begin end $$`);
  }
  await admin.query(`
    create schema torture;
    create table torture.purged (node_id bigint primary key);
    create function torture.note_purge() returns trigger language plpgsql security definer as $$
    begin
      insert into torture.purged values (old.id);
      return null;
    end
    $$;
    create trigger torture_note_purge after delete on filestore.nodes
      for each row execute function torture.note_purge();`);
  await admin.query(`
    insert into filestore.backend_mounts (mount_key, backend_kind, root_path, bucket)
    values ('disk', 'local', '/data', null), ('cloud', 's3', null, 'bucket')`);
  await admin.query(`
    select filestore.ensure_directory(m.mount_key, format('d%s/d%s/d%s', a % 4, a % 5, a % 6))
    from filestore.backend_mounts m, generate_series(0, 59) a`);
  await admin.query(`
    insert into filestore.nodes (backend_mount_id, parent_id, name, kind, size_bytes)
    select d.backend_mount_id, d.id, 'f' || i, 'file', i
    from filestore.nodes d, generate_series(0, 2) i
    where d.kind = 'directory'`);
  await admin.query('call filestore.prepare_moves(true)');
  const { rows: mounts } = await admin.query<Scene['mounts'][number]>(
    `select m.id, m.mount_key as key, n.id as "rootId"
     from filestore.backend_mounts m join filestore.nodes n on n.root_of_mount_id = m.id order by m.id`,
  );
  const scene: Scene = {
    mounts,
    passing: undefined,
    directories: [],
    files: [],
    tombstones: [],
    keyed: [],
    batches: [],
  };
  await refresh(scene, admin);
  return scene;
}
