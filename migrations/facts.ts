// Facts about this schema for the checks and the generated files that are not in the catalog. Only data: a
// change of the schema changes this file, and no code. Names are those of the schema filestore.

/** Foreign keys that need no index on all of their columns, and why. */
export const FOREIGN_KEYS_WITHOUT_INDEX: Readonly<Record<string, string>> = {
  nodes_parent_fkey:
    'nodes_live_child_key begins with parent_id, and all children of a parent have the same mount, parent_path and parent_live',
};

/** Functions that migrations/sample-calls.sql cannot run, and why. */
export const FUNCTIONS_WITHOUT_CALL: Readonly<Record<string, string>> = {
  guard_stale_totals: 'it refuses an operator, and the calls run as the owner',
  renew_after_migration: 'it is the trigger function of the history, which only the runner creates',
};

/** A column that holds ids of another table without a foreign key. */
export interface Reference {
  readonly to: string;
  /** Why an id may be of a row that is gone. Without a reason, filestore.check_integrity reports such an id. */
  readonly mayDangle?: string;
}

const LEFT_BY_MOUNT = 'deleting a mount deletes its scans, and filestore.expire_scans removes the rest';
const NEVER_COMMITTED = 'the transaction that writes the row removes it again';
const JOURNAL_STAYS = 'the journal outlives what it describes';

/** Every column that holds ids of another table without a foreign key. Diagrams draw them as dotted lines. */
export const REFERENCES_WITHOUT_KEY: Readonly<Record<string, Readonly<Record<string, Reference>>>> = {
  imports: {
    backend_mount_id: {
      to: 'backend_mounts',
      mayDangle: 'the record of an import stays when its mount is deleted',
    },
  },
  journal_entries: {
    backend_mount_id: { to: 'backend_mounts', mayDangle: JOURNAL_STAYS },
    primary_node_id: { to: 'nodes', mayDangle: JOURNAL_STAYS },
    secondary_node_id: { to: 'nodes', mayDangle: JOURNAL_STAYS },
    affected_node_ids: { to: 'nodes', mayDangle: JOURNAL_STAYS },
  },
  moves: { mount_id: { to: 'backend_mounts', mayDangle: 'a finished move stays when its mount is erased' } },
  node_sightings: { node_id: { to: 'nodes' } },
  nodes: { backend_mount_id: { to: 'backend_mounts' } },
  rollup_deltas: { backend_mount_id: { to: 'backend_mounts' }, directory_id: { to: 'nodes' } },
  rollups: { node_id: { to: 'nodes' } },
  scan_changes: {
    scan_id: { to: 'scans', mayDangle: LEFT_BY_MOUNT },
    node_id: { to: 'nodes', mayDangle: 'others may delete and purge it before the change is applied' },
  },
  scan_directories: {
    scan_id: { to: 'scans', mayDangle: NEVER_COMMITTED },
    node_id: { to: 'nodes', mayDangle: NEVER_COMMITTED },
    partner_id: { to: 'nodes', mayDangle: NEVER_COMMITTED },
    blocker_id: { to: 'nodes', mayDangle: NEVER_COMMITTED },
  },
  scan_entries: { scan_id: { to: 'scans', mayDangle: LEFT_BY_MOUNT } },
  scan_sightings: {
    scan_id: { to: 'scans', mayDangle: LEFT_BY_MOUNT },
    node_ids: {
      to: 'nodes',
      mayDangle: 'others may delete and purge them before the sightings are recorded',
    },
  },
  scans: {
    directory_id: { to: 'nodes', mayDangle: 'the directory may be purged after the scan' },
    journal_entry_ids: { to: 'journal_entries', mayDangle: 'the journal is pruned' },
  },
  snapshots: {
    superseded_by_journal_id: { to: 'journal_entries', mayDangle: 'the journal is pruned' },
    id: { to: 'nodes' },
    backend_mount_id: { to: 'backend_mounts' },
    parent_id: { to: 'nodes', mayDangle: 'an earlier parent may be purged before the node' },
    root_of_mount_id: { to: 'backend_mounts' },
  },
};

/** Columns of jsonb that contain only objects, as filestore.is_sound checks. The catalog does not show this. */
export const JSON_OBJECTS: Readonly<Record<string, readonly string[]>> = {
  nodes: ['metadata'],
  snapshots: ['metadata'],
};

/**
 * Columns of functions that return a table's rows, but with nulls in columns that are not null in the table: a version
 * that is still current has no end. A test compares this with the rows that pg returns.
 */
export const NULL_IN_RESULT: Readonly<Record<string, readonly string[]>> = {
  node_at: ['valid_to'],
  node_versions: ['valid_to'],
  tree_at: ['valid_to'],
};

/** Columns of functions that are never null. The catalog does not show this. A test compares it with the rows that pg returns. */
export const NEVER_NULL: Readonly<Record<string, readonly string[]>> = {
  begin_command: ['is_new', 'entry'],
  count_nodes: ['nodes', 'is_estimate'],
  directory_totals: ['size_bytes', 'file_count', 'dir_count', 'child_count', 'consistency_state'],
  list_nodes: ['cursor', 'node'],
  list_totals: ['node_id', 'size_bytes', 'file_count', 'dir_count', 'child_count', 'consistency_state'],
  list_unseen: ['node_ids'],
  scan_differences: ['number', 'action', 'kind', 'path'],
  sync_nodes: ['path', 'outcome'],
};

/** Arguments that may be null, although their default is another value. Elsewhere, null means the default only if it is the default. */
export const NULL_ARGUMENTS: Readonly<Record<string, readonly string[]>> = {
  // With reconciled_at, so that a node is compared with its backend without counting as seen.
  record_sightings: ['seen_at'],
};

/**
 * The domains of arguments that are arrays of text, by the name of the argument. As the type of an argument, an array of a domain
 * would keep the checks of the domain from being changed.
 */
export const DOMAINS_OF_ARGUMENTS: Readonly<Record<string, string>> = {
  states: 'node_state',
  kinds: 'node_kind',
};

/** Functions that return one value, which may be null. The catalog does not show this. */
export const NULL_VALUES: readonly string[] = ['node_location'];

/** What the catalog does not show of a view. A test compares it with the rows that pg returns. */
export interface ViewFacts {
  /** The tables whose columns it shows unchanged, with the same name and type; the first one that has the column counts. */
  readonly from: readonly string[];
  /** Columns that it shows under another name. */
  readonly renamed?: Readonly<Record<string, { readonly table: string; readonly column: string }>>;
  /** Columns that may be null, although they are not null in the table. */
  readonly nullable?: readonly string[];
}

export const VIEWS: Readonly<Record<string, ViewFacts>> = {
  view_filestore_active_nodes: {
    from: ['nodes', 'backend_mounts', 'node_sightings'],
    renamed: { mount_state: { table: 'backend_mounts', column: 'state' } },
    nullable: ['last_seen_at', 'last_reconciled_at'],
  },
  view_filestore_directories: { from: ['nodes', 'backend_mounts', 'rollups'] },
  view_filestore_mount_moves: { from: ['moves'] },
  view_filestore_node_versions: { from: ['snapshots'], nullable: ['valid_to'] },
};
