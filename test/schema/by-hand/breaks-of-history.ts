import type { Break } from './breaks-of-nodes.ts';

/** Nothing is off: the table has no trigger against its owner, or the trigger allows it. */
const off = 'nothing';

const THIRD_VERSION = 'update filestore.nodes set metadata = \'{"a": 1}\' where id = :f';

export const BREAKS_OF_HISTORY: readonly Break[] = [
  {
    rule: 'every superseded version of every node is kept',
    what: 'a change without history and totals',
    off: 'nodes_record_update',
    sql: ['update filestore.nodes set size_bytes = 6 where id = :f'],
    named: ['missing version', 'wrong totals'],
  },
  {
    rule: 'every superseded version of every node is kept',
    what: 'a version that is missing',
    off: 'snapshots_guard_removal',
    sql: ['delete from filestore.snapshots where id = :f'],
    named: ['missing version'],
  },
  {
    rule: 'every superseded version of every node is kept',
    what: 'a version that is missing before a horizon that was taken back',
    off,
    sql: [
      "update filestore.backend_mounts set history_horizon = 'infinity' where id = :mount",
      'delete from filestore.snapshots where id = :f',
      'update filestore.backend_mounts set history_horizon = null where id = :mount',
    ],
    named: ['missing version'],
  },
  {
    rule: 'every superseded version of every node is kept',
    what: 'a version that is missing after one that ends too late',
    off: 'snapshots_guard snapshots_guard_removal',
    sql: [
      THIRD_VERSION,
      'delete from filestore.snapshots where id = :f and version = 2',
      "update filestore.snapshots set valid_to = valid_to + interval '1 hour' where id = :f",
    ],
    named: ['missing version'],
  },
  {
    rule: 'every superseded version of every node is kept',
    what: 'a truncated history',
    off: 'snapshots_refuse_truncate',
    sql: ['truncate filestore.snapshots'],
    named: ['missing version'],
  },
  {
    rule: 'the node of a version exists',
    what: 'history of a node that does not exist',
    off: 'snapshots_guard_insert',
    sql: [
      `insert into filestore.snapshots
       select s.* from filestore.snapshots t
       cross join lateral jsonb_populate_record(t, '{"id": 999999}') s where t.id = :f`,
    ],
    named: ['history of no node'],
  },
  {
    rule: 'the periods `[valid_from, valid_to)`',
    what: 'versions that overlap',
    sql: ["update filestore.snapshots set valid_to = valid_to + interval '1 hour' where id = :f"],
    named: ['overlapping versions'],
  },
  {
    rule: 'the periods `[valid_from, valid_to)`',
    what: 'a gap between versions',
    sql: ["update filestore.nodes set updated_at = updated_at + interval '1 hour' where id = :f"],
    named: ['gap between versions'],
  },
  {
    rule: 'the periods `[valid_from, valid_to)`',
    what: 'a node that is older than its history',
    sql: ["update filestore.nodes set updated_at = updated_at - interval '1 hour' where id = :f"],
    named: ['overlapping versions'],
  },
  {
    rule: 'the periods `[valid_from, valid_to)`',
    what: 'a first version that begins before it was written',
    sql: ["update filestore.snapshots set valid_from = valid_from - interval '1 hour' where id = :f"],
    named: ['gap between versions'],
  },
  {
    rule: 'the periods `[valid_from, valid_to)`',
    what: 'a version that was written after the next one',
    off: 'snapshots_guard',
    sql: [
      THIRD_VERSION,
      "update filestore.snapshots set updated_at = updated_at + interval '1 minute' where id = :f and version = 1",
    ],
    named: ['gap between versions'],
  },
  {
    rule: 'the periods `[valid_from, valid_to)`',
    what: 'versions in the future',
    sql: [
      "update filestore.snapshots set valid_to = '2150-01-01' where id = :f",
      "update filestore.nodes set updated_at = '2150-01-01' where id = :f",
    ],
    named: ['moment in the future'],
  },
  {
    rule: 'the periods `[valid_from, valid_to)`',
    what: 'a tombstone whose versions are all in the future',
    sql: [
      "update filestore.snapshots set updated_at = 'infinity' where id = :gone",
      "update filestore.nodes set updated_at = 'infinity', deleted_at = 'infinity' where id = :gone",
    ],
    named: ['gap between versions', 'moment in the future'],
  },
  {
    rule: 'history never changes',
    what: 'history that names another mount than its node',
    off: 'snapshots_guard',
    sql: ['update filestore.snapshots set backend_mount_id = :other where id = :f'],
    named: ['history on another mount'],
  },
  {
    rule: 'history never changes',
    what: 'history of another kind and creation',
    off: 'snapshots_guard',
    sql: [
      "update filestore.snapshots set kind = 'directory' where id = :f",
      "update filestore.snapshots set created_at = '2020-01-01' where id = :gone",
    ],
    named: ['history of another node'],
  },
  {
    rule: 'history never changes',
    what: 'a version after the current one',
    off: 'snapshots_guard',
    sql: ['update filestore.snapshots set version = 3 where id = :f'],
    named: ['missing version', 'version after the current one'],
  },
  {
    rule: 'history never changes',
    what: 'content of a superseded version',
    off: 'snapshots_guard',
    sql: ['update filestore.snapshots set size_bytes = 9, metadata = \'{"a": 1}\' where id = :f'],
    named: [],
  },
];

export const BREAKS_OF_THE_JOURNAL: readonly Break[] = [
  {
    rule: 'an entry is inserted as queued or running',
    what: 'an entry of no mount that has ended',
    off: 'journal_entries_guard',
    sql: [
      `insert into filestore.journal_entries (backend_mount_id, command, status, started_at, completed_at)
       values (404, 'x', 'succeeded', now(), now())`,
    ],
    named: [],
  },
  {
    rule: 'a status only goes forward',
    what: 'an entry with another request',
    off: 'journal_entries_guard journal_entries_guard_request',
    sql: ["update filestore.journal_entries set principal = 'mallory' where id = :entry"],
    named: [],
  },
  {
    rule: 'an unfinished entry cannot be removed',
    what: 'an unfinished entry that was removed',
    off: 'journal_entries_guard_removal',
    sql: ['delete from filestore.journal_entries where id = :entry'],
    named: [],
  },
  {
    rule: 'an unfinished entry cannot be removed',
    what: 'a truncated journal',
    off: 'journal_entries_refuse_truncate',
    sql: ['truncate filestore.journal_entries'],
    named: [],
  },
  {
    rule: 'a change of a node is recorded only under a running entry',
    what: 'history that names an entry that did not change it',
    off: 'snapshots_guard',
    sql: ['update filestore.snapshots set superseded_by_journal_id = :entry where id = :f'],
    named: [],
  },
];
