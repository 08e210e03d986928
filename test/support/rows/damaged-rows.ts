import type { OldNode } from './old-catalogue.ts';
import type { Row } from './staged.ts';

/** What docs/import.md refuses: the reason, and how a sound row becomes such a row. */
export interface Damage {
  readonly reason: string;
  readonly change: Row;
  /** Only for some nodes. */
  readonly fits?: (node: OldNode) => boolean;
  /** Only for nodes in which there are no others, whose own reason would depend on the damage. */
  readonly isPlace?: boolean;
}

const isLive = ({ now }: OldNode) => now.state !== 'deleted';
const isDead = (node: OldNode) => !isLive(node);
const isFile = ({ kind }: OldNode) => kind === 'file';
const isDirectory = (node: OldNode) => !isFile(node);

const SECRET = { password: 'hunter2-Zq9x' };
const LONG = 'x'.repeat(1025);
/** Not of the range of ids of any database. */
const BEYOND = 2 ** 45;
const OUT_OF_TIME = ['2999-01-01Z', 'infinity', '-infinity', '0001-12-31 BC'];

const each = (column: string, values: readonly unknown[], reason: string, more: Partial<Damage> = {}) =>
  values.map((value): Damage => ({ reason, change: { [column]: value }, ...more }));

const from = (base: Row, damages: readonly Damage[]) =>
  damages.map((damage): Damage => ({ ...damage, change: { ...base, ...damage.change } }));

const CONTENT: readonly Damage[] = [
  ...each('size_bytes', [-1], 'nodes_size_check'),
  ...each('checksum', ['', 'md5:X'], 'nodes_checksum_check'),
  ...each('content_hash', [LONG], 'nodes_content_hash_check'),
  ...each('storage_class', ['x'.repeat(257)], 'nodes_storage_class_check'),
  ...each('link_target', [''], 'nodes_link_target_check'),
  ...each('metadata', [[]], 'nodes_metadata_check'),
  ...each('metadata', [SECRET], 'import_secret_check'),
  ...each('last_modified_at', ['infinity'], 'nodes_last_modified_check'),
  ...each('backend_identity', ['', LONG], 'nodes_backend_identity_check'),
];

export const NODE_DAMAGES: readonly Damage[] = [
  ...CONTENT,
  ...each('size_bytes', [1], 'nodes_size_check', { fits: isDirectory }),
  ...each('link_target', ['x'], 'nodes_link_target_check', { fits: isDirectory }),
  ...each('state', ['', 'lost'], 'node_state_check', { fits: isLive }),
  { reason: 'nodes_live_check', change: { state: 'active', deleted_at: '2025-01-01Z' }, fits: isDead },
  ...each('kind', [null, 'link'], 'node_kind_check', { isPlace: true }),
  ...each('version', [0, -1, 2_000_000_001, 2 ** 31 - 1], 'nodes_version_check'),
  ...each('updated_at', OUT_OF_TIME, 'nodes_updated_at_check'),
  // Without updated_at, a row would have one of these moments there too.
  ...from({ updated_at: '2025-01-01Z' }, [
    ...each('created_at', OUT_OF_TIME, 'import_moment_check'),
    ...each('deleted_at', OUT_OF_TIME, 'nodes_deleted_at_check', { fits: isDead }),
  ]),
];

export const PLACE_DAMAGES: Readonly<Record<'paths' | 'parents', readonly Damage[]>> = {
  paths: [
    ...each('id', [0, -1, BEYOND], 'import_id_check', { isPlace: true }),
    ...each('path', ['/x', 'x/', 'x//y', './x', 'x/..', '.', null], 'nodes_path_check', { isPlace: true }),
    ...each('path', ['\u0001', 'x\u007f', LONG], 'nodes_name_check', { isPlace: true }),
    ...each('path', ['missing/x'], 'nodes_parent_missing', { isPlace: true }),
  ],
  parents: [
    ...each('id', [null, 0, -1, BEYOND], 'import_id_check', { isPlace: true }),
    ...['.', '..', 'x/y', '\u0001', 'x\u009f', LONG].map(
      (name): Damage => ({
        reason: 'nodes_name_check',
        change: { name, path: null },
        isPlace: true,
        fits: isLive,
      }),
    ),
    ...each('path', ['x', 'missing/x'], 'nodes_derived_path_check', { isPlace: true, fits: isLive }),
    ...each('path', ['/x', 'x/', '../x', 'x\u0001'], 'nodes_path_check', { isPlace: true, fits: isDead }),
    ...each('parent_id', [999_999, -7], 'nodes_parent_missing', { isPlace: true }),
    ...each('parent_id', ['elsewhere', 'root elsewhere'], 'nodes_parent_elsewhere', { isPlace: true }),
    ...each('parent_id', ['file'], 'nodes_not_directory', { isPlace: true }),
    ...each('parent_id', ['itself'], 'nodes_cycle_check', { isPlace: true }),
    ...each('parent_id', ['tombstone'], 'nodes_parent_deleted', { isPlace: true, fits: isLive }),
  ],
};

export const VERSION_DAMAGES: readonly Damage[] = [
  ...CONTENT,
  ...each('version', [null, 0, -1, 2 ** 31 - 1], 'import_version_check'),
  ...each('updated_at', [null, ...OUT_OF_TIME], 'import_version_check'),
  ...each('id', [null, 0, 999_999], 'nodes_missing'),
  ...each('state', ['', 'lost'], 'node_state_check'),
  ...each('path', ['', '/x', 'x/', 'x//y', '../x', 'x\u0001'], 'nodes_path_check'),
  ...each('parent_id', ['itself'], 'nodes_cycle_check'),
  ...each('parent_id', ['file'], 'nodes_not_directory'),
  ...each('parent_id', ['elsewhere', 'root elsewhere'], 'nodes_parent_elsewhere'),
  ...each('parent_id', [-1, 0, BEYOND], 'nodes_parent_missing'),
  ...each('superseded_by_journal_id', [0, -5, BEYOND], 'import_id_check'),
].map(({ reason, change }) => ({
  reason,
  // A parent of a path in the root is the root, whatever its id was.
  change: 'parent_id' in change ? { path: 'x/y', ...change } : change,
}));

const SUCCEEDED: Row = { status: 'succeeded', error: null };
const FAILED: Row = { status: 'failed', result: null, error: { code: 'EIO' } };
const CANCELED: Row = { ...FAILED, status: 'canceled' };
const MOMENTS = ['created_at', 'started_at', 'completed_at'];
export const ENTRY_DAMAGES: readonly Damage[] = [
  ...each('id', [null, 0, -1, BEYOND], 'import_id_check'),
  ...each('status', [null, '', 'odd'], 'command_status_check'),
  ...each('status', ['queued', 'running'], 'journal_entries_born_open_check'),
  ...MOMENTS.flatMap((moment) => each(moment, OUT_OF_TIME, 'import_moment_check')),
  ...from(FAILED, each('started_at', OUT_OF_TIME, 'import_moment_check')),
  ...from(SUCCEEDED, each('completed_at', ['2020-01-01Z'], 'journal_entries_completed_check')),
  ...each('duration_ms', [-1], 'journal_entries_duration_check'),
  ...from(SUCCEEDED, each('error', [{}], 'journal_entries_outcome_check')),
  ...from(FAILED, each('error', [null], 'journal_entries_outcome_check')),
  ...from(CANCELED, each('result', [{}], 'journal_entries_outcome_check')),
  ...each('parameters', [SECRET], 'import_secret_check'),
  ...from(SUCCEEDED, each('result', [SECRET], 'import_secret_check')),
  ...from(FAILED, each('error', [SECRET], 'import_secret_check')),
  ...from(CANCELED, each('error', [SECRET], 'import_secret_check')),
  ...each('command', [''], 'journal_entries_command_check'),
  ...each('idempotency_key', ['', LONG], 'journal_entries_idempotency_key_check'),
  ...each('correlation_id', [LONG], 'journal_entries_size_check'),
  ...each('affected_node_ids', ['{{1},{2}}', '{null}'], 'journal_entries_affected_check'),
];

/** Two moments of a row that are just within the limits. */
export const FIRST_MOMENT = '0001-01-01T00:00:00Z';
export { CANCELED, FAILED, SUCCEEDED };
