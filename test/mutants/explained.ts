/** Without a condition that only compares the scan of rows of scan_directories. */
const ONE_SCAN =
  'Equivalent: scan_directories has rows only inside the transaction that plans a scan, and only of that scan.';

/**
 * Survivors that need no test, each by its id or, for a whole kind, by its name. "Equivalent": no statement can tell the
 * difference. "Performance only": plans and counted instructions catch it instead.
 */
export const EXPLAINED: Readonly<Record<string, string>> = {
  'planner setting left out': 'Performance only: it changes plans, which the bench counts instructions of.',
  'index dropped':
    'Performance only: it is not unique. test/schema/lookups.slow.test.ts looks for most of them in plans.',
  // filestore.journal_entries_idempotency_key … where idempotency_key is not null → true
  'journal_entries/unique-index-widened/631542':
    'Performance only: nulls differ from each other in a unique index, so more rows are only more entries.',
  // functions/prepare_node_insert.sql: new.updated_at > statement_timestamp() → >=
  'prepare_node_insert/comparison-shifted/aaecae':
    'Equivalent: the condition only decides whether refuse_created_node, which tests again, is called.',
  // functions/prepare_node_update.sql: if new.state is distinct from old.state → <>
  'prepare_node_update/null-compared/2d174e':
    'Equivalent: no state is null, and an update to null fails anyway.',
  // functions/move_node.sql: if taken <> 'nodes_live_child_key' → if false, and the statement that sets taken left out
  'move_node/branch-left-out/e22750':
    'Equivalent: each other unique key of nodes contains the id, or belongs to roots, which are not moved.',
  'move_node/statement-left-out/5c9531':
    'Equivalent: each other unique key of nodes contains the id, or belongs to roots, which are not moved.',
  'restore_node/branch-left-out/e22750':
    'Equivalent: each other unique key of nodes contains the id, or belongs to roots, which are not restored.',
  'restore_node/statement-left-out/5c9531':
    'Equivalent: each other unique key of nodes contains the id, or belongs to roots, which are not restored.',
  // functions/expire_commands.sql: limit batch of the search for mounts
  'expire_commands/limit-left-out/f6d863':
    'Performance only: the update takes the oldest commands, at most a batch.',
  // functions/copy_tree.sql: and n.live → and true
  'copy_tree/condition-left-out/16c9ef':
    'Equivalent: copy_nodes and merge_nodes look for a live source again, and refuse_stale then says the same.',
  // functions/prune_history.sql: max(p.node_id) → min(p.node_id)
  'prune_history/extreme-swapped/b26315':
    'Performance only: the next call begins at an earlier node, whose versions are gone.',
  // functions/delete_node.sql: n.path >= node.path || '/' → >
  'delete_node/comparison-shifted/0053af': 'Equivalent: no path ends with a slash.',
  // functions/prepare_node_update.sql: new.backend_mount_id is distinct from old.backend_mount_id → <>
  'prepare_node_update/null-compared/536501':
    'Equivalent: no mount is null, and an update to null fails anyway.',
  // functions/restore_node.sql: coalesce(with_tree, false) → coalesce(with_tree, true)
  'restore_node/boolean-flipped/fcd04b': 'Equivalent: only null as with_tree then takes a stronger lock.',
  // functions/purge_deleted.sql: select distinct d.directory_id → select d.directory_id
  'purge_deleted/distinct-left-out/4dd812': 'Performance only: the ids are compared, never counted.',
  'purge_deleted/distinct-left-out/4dd812.2': 'Performance only: the ids are compared, never counted.',
  'purge_deleted/distinct-left-out/4dd812.3': 'Performance only: the ids are compared, never counted.',
  // functions/climb_totals.sql: continue when lowest >= 0 → > 0
  'climb_totals/comparison-shifted/752c96': 'Equivalent: a root is then added up in one more round.',
  // functions/apply_batch.sql: where c.scan_id = scan.id → where true
  'apply_batch/condition-left-out/aee910':
    'Performance only: numbers of other scans make a batch smaller, and the next one goes on after them.',
  // functions/record_sightings.sql: if (least(seen_at, …
  'record_sightings/branch-always-taken/629280':
    'Performance only: one test of both moments saves two calls that test each.',
  // functions/remove_node_records.sql: for update → for share
  'remove_node_records/lock-weakened/b625ec':
    'Equivalent: a sighting waits for either lock, and only one session can remove a node.',
  // functions/plan_files.sql: left join … on h.scan_id = scan.id → on true
  'plan_files/condition-left-out/ca864c':
    'Equivalent: scan_directories has rows only inside the transaction that plans a scan.',
  // functions/guard_node_removal.sql: order by n.name → order by n.name desc
  'guard_node_removal/order-changed/1886be':
    'Equivalent: any tombstone below the directory refuses its removal, and the message names one of them.',
  // functions/record_node_update.sql: if not old.live then → if true then
  'record_node_update/branch-always-taken/229107':
    'Performance only: the old parent of a live node exists, and is locked too.',
  // functions/set_node_version.sql: if current_setting('filestore.backfill_id', true) <> '' → if true
  'set_node_version/branch-always-taken/a3cdaa':
    'Performance only: is_backfill finds no backfill whose id is an empty text.',
  // functions/prepare_node_insert.sql: the conditions before refuse_created_node → if true, and > 255 → >=
  'prepare_node_insert/branch-always-taken/e49d52':
    'Performance only: refuse_created_node tests the same conditions again.',
  'prepare_node_insert/comparison-shifted/97a050':
    'Equivalent: the condition only decides whether refuse_created_node, which tests again, is called.',
  // functions/prepare_node_insert.sql: the lookup of the parent left out
  'prepare_node_insert/statement-left-out/c88efa':
    'Performance only: find_parent then makes the same lookup, with the same lock.',
  // functions/prepare_node_update.sql: if moves then → if true then
  'prepare_node_update/branch-always-taken/c109e0.2':
    'Performance only: path, depth and directory_path are computed again from the same values.',
  // functions/check_integrity.sql: where n.parent_id is null → where false
  'check_integrity/condition-left-out/441da3':
    'Equivalent: a root is also a node whose parent does not exist.',
  // functions/check_integrity.sql: a.above[1] > a.place → >=
  'check_integrity/comparison-shifted/160516': 'Equivalent: the one ends with 0, the other with a slash.',
  // functions of imports: attnum > 0 → >= 0
  'check_staged_rows/comparison-shifted/9f0f90': 'Equivalent: no column has the number 0.',
  'create_staged/comparison-shifted/9f0f90': 'Equivalent: no column has the number 0.',
  'staged_columns/comparison-shifted/3d2846': 'Equivalent: no column has the number 0.',
  'staged_columns/comparison-shifted/c591e5': 'Equivalent: no column has the number 0.',
  'staged_columns/comparison-shifted/c591e5.2': 'Equivalent: no column has the number 0.',
  'staged_columns/comparison-shifted/12f3b4': 'Equivalent: no column has the number 0.',
  'staged_columns/comparison-shifted/12f3b4.2': 'Equivalent: no column has the number 0.',
  'staged_columns/comparison-shifted/12f3b4.3': 'Equivalent: no column has the number 0.',
  'take_entries/comparison-shifted/9f0f90': 'Equivalent: no column has the number 0.',
  'take_versions/comparison-shifted/9f0f90': 'Equivalent: no column has the number 0.',
  'take_versions/comparison-shifted/9f0f90.2': 'Equivalent: no column has the number 0.',
  'take_versions/comparison-shifted/9f0f90.3': 'Equivalent: no column has the number 0.',
  // functions/check_staged_entries.sql and check_staged_nodes.sql: isfinite left out
  'check_staged_entries/condition-left-out/7ed707':
    'Equivalent: no infinite moment is between year 1 and now.',
  'check_staged_entries/condition-left-out/4d506e':
    'Equivalent: no infinite moment is between year 1 and now.',
  'check_staged_entries/condition-left-out/f9631a':
    'Equivalent: no infinite moment is between year 1 and now.',
  'check_staged_nodes/condition-left-out/4b51ce': 'Equivalent: no infinite moment is between year 1 and now.',
  'check_staged_nodes/condition-left-out/28a187': 'Equivalent: no infinite moment is between year 1 and now.',
  // functions/place_by_paths.sql and arrange_staged.sql: the first column of distinct on, descending
  'place_by_paths/order-changed/49d381':
    'Equivalent: the order of the groups changes, and not which row of each is chosen.',
  'place_by_paths/order-changed/49d381.2':
    'Equivalent: the order of the groups changes, and not which row of each is chosen.',
  'place_by_paths/order-changed/ccb6c6':
    'Equivalent: the order of the groups changes, and not which row of each is chosen.',
  'place_by_paths/order-changed/aeb967':
    'Equivalent: the order of the groups changes, and not which row of each is chosen.',
  'place_by_paths/order-changed/907380':
    'Equivalent: the order of the groups changes, and not which row of each is chosen.',
  'arrange_staged/order-changed/796e6b':
    'Equivalent: the order of the groups changes, and not which row of each is chosen.',
  // lists of columns: order by a.attnum → desc
  'create_staged/order-changed/3dc3eb': 'Equivalent: both lists of the insert have the same order.',
  'take_entries/order-changed/3dc3eb': 'Equivalent: both lists of the insert have the same order.',
  'take_versions/order-changed/699bcf': 'Equivalent: both lists of the insert have the same order.',
  // columns of temporary tables: order by c.place → desc
  'stage_entries/order-changed/a87b91': 'Equivalent: each use of the temporary table names its columns.',
  'stage_nodes/order-changed/a87b91': 'Equivalent: each use of the temporary table names its columns.',
  'stage_nodes/order-changed/a87b91.2': 'Equivalent: each use of the temporary table names its columns.',
  'stage_versions/order-changed/a87b91': 'Equivalent: each use of the temporary table names its columns.',
  // functions/begin_import.sql: which old rows are kept
  'begin_import/condition-left-out/727374':
    'Performance only: each reader of the old rows looks for those that move or change.',
  'begin_import/condition-left-out/ab1cff':
    'Performance only: each reader of the old rows looks for those that move or change.',
  'begin_import/and/or-swapped/d24f8a':
    'Performance only: each reader of the old rows looks for those that move or change.',
  'begin_import/condition-left-out/50260a':
    'Performance only: each reader of the old rows looks for those that move or change.',
  // functions/arrange_staged.sql: one of two conditions of filestore_import_below
  'arrange_staged/condition-left-out/c9c15b.2':
    'Equivalent: the old rows that move are those of the numbers, and new directories have none.',
  'arrange_staged/condition-left-out/901187.4':
    'Equivalent: the old rows that move are those of the numbers, and new directories have none.',
  // functions/check_staged_nodes.sql: and n.id <> t.id → and true
  'check_staged_nodes/condition-left-out/375662': 'Equivalent: the row itself is staged for its node.',
  // functions/check_staged_nodes.sql: and t.directory_path is not null → and true
  'check_staged_nodes/condition-left-out/7e831c':
    'Equivalent: nothing is in a file, so no row is refused because it stays.',
  // functions/check_staged_entries.sql: and f.fault is not null → and true
  'check_staged_entries/condition-left-out/2c95f4': 'Equivalent: no entry has a fault before.',
  // functions/place_by_paths.sql: and not r.live → and true
  'place_by_paths/condition-left-out/78debb': 'Equivalent: a live row has no deleted_at.',
  // functions/plan_import.sql: if found then → if true then
  'plan_import/branch-always-taken/bf66b8.2': 'Performance only: a second check finds the same faults.',
  // functions/import_nodes.sql: the fold left out, or smaller
  'import_nodes/statement-left-out/c39268': 'Performance only: totals count what is not folded yet.',
  'import_nodes/extreme-swapped/c7d5c6': 'Performance only: totals count what is not folded yet.',
  // functions/staged_columns.sql: left join pg_type d → join
  'staged_columns/outer-join-made-inner/652a0f': 'Equivalent: each column that was not dropped has a type.',
  // functions/staged_columns.sql and stage_nodes.sql: and not s.attisdropped → and true
  'stage_nodes/condition-left-out/f9b9e9':
    'Equivalent: a dropped column has a name that is looked for nowhere.',
  'staged_columns/condition-left-out/5a1808.2':
    'Equivalent: a dropped column has a name that is looked for nowhere.',
  'staged_columns/condition-left-out/5a1808.3':
    'Equivalent: a dropped column has a name that is looked for nowhere.',
  // functions/staged_columns.sql: and s.attnum > 0 → and true
  'staged_columns/condition-left-out/6f5f43.2':
    'Equivalent: no column of the schema has the name of a system column.',
  'staged_columns/condition-left-out/6f5f43.3':
    'Equivalent: no column of the schema has the name of a system column.',
  // functions/staged_columns.sql: and t.attname <> all (left_out) → and true
  'staged_columns/condition-left-out/8d2c5d.2':
    'Equivalent: a table with one of these columns was refused before.',
  // functions/staged_columns.sql: the refusal of null
  'staged_columns/branch-left-out/160df4':
    'Equivalent: each caller returns before it asks for the columns of null.',
  'staged_columns/refusal-left-out/16d426':
    'Equivalent: each caller returns before it asks for the columns of null.',
  // functions/check_batch.sql: limit 1 left out
  'check_batch/limit-left-out/7c2df3': 'Equivalent: select into takes the first row.',
  // functions/take_nodes.sql: select distinct v.node_number → select
  'take_nodes/distinct-left-out/33cda6': 'Performance only: the numbers are compared, never counted.',
  // functions/find_partners.sql: longest <= 0 or not exists (…) → and
  'find_partners/and/or-swapped/f4c365':
    'Performance only: the update that follows compares the length of each path again.',
  // functions that plan a scan: scan_id = scan.id of scan_directories → true
  'end_scan/condition-left-out/f20fbf': ONE_SCAN,
  'find_partners/condition-left-out/83c0be': ONE_SCAN,
  'find_partners/condition-left-out/7c23d8': ONE_SCAN,
  'find_partners/condition-left-out/7c23d8.2': ONE_SCAN,
  'find_partners/condition-left-out/334649': ONE_SCAN,
  'find_partners/condition-left-out/7c23d8.3': ONE_SCAN,
  'find_partners/condition-left-out/496ccb': ONE_SCAN,
  'find_partners/condition-left-out/7c23d8.4': ONE_SCAN,
  'find_partners/condition-left-out/7c23d8.5': ONE_SCAN,
  'moved_in_nodes/condition-left-out/7c23d8': ONE_SCAN,
  'place_directories/condition-left-out/f20fbf': ONE_SCAN,
  'place_directories/condition-left-out/a507f4': ONE_SCAN,
  'place_directories/condition-left-out/7a98c3': ONE_SCAN,
  'place_directories/condition-left-out/948635': ONE_SCAN,
  'place_directories/condition-left-out/7c23d8': ONE_SCAN,
  'place_directories/condition-left-out/7c23d8.2': ONE_SCAN,
  'plan_directories/condition-left-out/111d74': ONE_SCAN,
  'plan_directories/condition-left-out/7c23d8': ONE_SCAN,
  'plan_directories/condition-left-out/7c23d8.2': ONE_SCAN,
  'plan_directories/condition-left-out/904aef': ONE_SCAN,
  'plan_files/condition-left-out/7c23d8': ONE_SCAN,
  'plan_files/condition-left-out/69520e': ONE_SCAN,
  'plan_lost_directories/condition-left-out/80ab58': ONE_SCAN,
  'plan_lost_directories/condition-left-out/101cb4': ONE_SCAN,
  'plan_lost_directories/condition-left-out/81a936': ONE_SCAN,
  'plan_lost_directories/condition-left-out/daf0fd': ONE_SCAN,
  'plan_lost_directories/condition-left-out/8ab329': ONE_SCAN,
  'plan_scan/condition-left-out/f20fbf': ONE_SCAN,
  'plan_scan/condition-left-out/f20fbf.2': ONE_SCAN,
  // functions/plan_import.sql: not isfinite(o.deleted_at) → false
  'plan_import/condition-left-out/fa98e3':
    'Equivalent: infinity is in the future, and is_sound has refused -infinity with the same reason.',
};
