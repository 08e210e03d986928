// Facts about this schema for the checks and the generated files that are not in the catalog. Only data: a
// change of the schema changes this file, and no code. Names are those of the schema filestore.

/** Foreign keys that need no index on all of their columns, and why. */
export const FOREIGN_KEYS_WITHOUT_INDEX: Readonly<Record<string, string>> = {
  nodes_parent_fkey:
    'nodes_live_child_key begins with parent_id, and all children of a parent have the same mount, parent_path and parent_live',
};

/** Functions that migrations/sample-calls.sql cannot run, and why. */
export const FUNCTIONS_WITHOUT_CALL: Readonly<Record<string, string>> = {
  renew_after_migration: 'it is the trigger function of the history, which only the runner creates',
};

/** Columns that hold ids of another table without a foreign key. Diagrams draw them as dotted lines. */
export const REFERENCES_WITHOUT_KEY: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  journal_entries: { primary_node_id: 'nodes', secondary_node_id: 'nodes', affected_node_ids: 'nodes' },
  node_sightings: { node_id: 'nodes' },
  rollup_deltas: { directory_id: 'nodes' },
  rollups: { node_id: 'nodes' },
  snapshots: { id: 'nodes', superseded_by_journal_id: 'journal_entries' },
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
  tree_at: ['valid_to'],
};

/** Columns of functions that are never null. The catalog does not show this. A test compares it with the rows that pg returns. */
export const NEVER_NULL: Readonly<Record<string, readonly string[]>> = {
  directory_totals: ['size_bytes', 'file_count', 'dir_count', 'child_count', 'consistency_state'],
  list_totals: ['node_id', 'size_bytes', 'file_count', 'dir_count', 'child_count', 'consistency_state'],
  list_unseen: ['node_ids'],
};
