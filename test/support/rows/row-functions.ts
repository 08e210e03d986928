/** An example of each function that returns rows, on the tree of `loadLargeTree`. */
export const CALLS: Readonly<Record<string, string>> = {
  access_rights: "access_rights('service')",
  audit_rollups: "audit_rollups('m')",
  audit_totals: 'audit_totals(null)',
  check_access: 'check_access()',
  check_integrity: 'check_integrity()',
  check_sequences: 'check_sequences()',
  command_by_id: 'command_by_id(1)',
  create_nodes: `create_nodes((
    select jsonb_agg(jsonb_build_object('parent_id', 60, 'name', 'new' || g)) from generate_series(1, 100) g))`,
  directory_totals: 'directory_totals(60)',
  expire_commands: "expire_commands('0')",
  find_by_checksum: "find_by_checksum('md5:' || md5('d5f9'))",
  list_commands: 'list_commands()',
  list_directory: 'list_directory(60)',
  list_mounts: 'list_mounts()',
  list_nodes: "list_nodes('m')",
  list_totals:
    'list_totals(array(select id from filestore.nodes where directory_path is not null limit 200))',
  mount_by_id: 'mount_by_id((select min(id) from filestore.backend_mounts))',
  mount_by_key: "mount_by_key('m')",
  move_progress: 'move_progress(null)',
  move_steps: 'move_steps()',
  node_at: 'node_at(501, now())',
  node_by_id: 'node_by_id(501)',
  node_by_path: "node_by_path('m', 'd5/f9')",
  node_commands: 'node_commands(501)',
  node_versions: 'node_versions(501)',
  nodes_by_id: 'nodes_by_id(array(select generate_series(401, 500)))',
  nodes_by_path: "nodes_by_path('m', array(select 'd5/f' || g from generate_series(1, 100) g))",
  pending_totals: 'pending_totals(null)',
  scan_differences: 'scan_differences((select max(id) from filestore.scans))',
  set_states: "set_states(array(select generate_series(401, 500)), 'inconsistent')",
  sync_nodes: `sync_nodes('m', (
    select jsonb_agg(jsonb_build_object('path', 'synced/f' || g)) from generate_series(1, 200) g))`,
  tree_at: "tree_at('m', 'd5', now())",
  update_nodes: `update_nodes((
    select jsonb_agg(jsonb_build_object('id', n.id, 'size_bytes', 7))
    from (select id from filestore.nodes where live and kind = 'file' limit 100) n))`,
};
