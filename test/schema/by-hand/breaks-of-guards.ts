import type { Break } from './breaks-of-nodes.ts';

/** Nothing is off: the table has no trigger against its owner, or the trigger allows it. */
const off = 'nothing';

export const BREAKS_OF_GUARDS: readonly Break[] = [
  {
    rule: 'Ids are numbers below 2^53',
    what: 'ids that run out',
    off,
    sql: ["select setval('filestore.journal_entries_id_seq', 1099511627775 - 1000)"],
    named: ['ids run out'],
  },
  {
    rule: 'Ids are numbers below 2^53',
    what: 'a sequence behind its table',
    off,
    sql: ["select setval('filestore.nodes_id_seq', 1)"],
    named: ['sequence behind its table'],
  },
  {
    rule: 'Ids are numbers below 2^53',
    what: 'ids that JavaScript cannot represent',
    off,
    sql: [
      `insert into filestore.nodes (id, backend_mount_id, parent_id, name, kind)
       overriding system value values (9007199254740992, :mount, :b, 'g', 'file'), (-1, :mount, :b, 'h', 'directory')`,
      `insert into filestore.journal_entries (id, command) overriding system value values (9007199254740992, 'x')`,
      "update filestore.journal_entries set status = 'canceled' where id = 9007199254740992",
      `insert into filestore.backend_mounts (id, mount_key, backend_kind, bucket)
       overriding system value values (9007199254740993, 'far', 's3', 'far')`,
    ],
    named: ['id out of range'],
    chosen: { mount_key: "'far'" },
  },
  ...['nodes_prepare_update', 'all'].map(
    (trigger): Break => ({
      rule: 'The guards apply to the owner too',
      what: `a trigger that is switched off: ${trigger}`,
      off,
      sql: [`alter table filestore.nodes disable trigger ${trigger}`],
      named: ['guard switched off'],
    }),
  ),
  {
    rule: 'The guards apply to the owner too',
    what: 'a constraint that is not validated',
    off,
    sql: [
      'alter table filestore.nodes drop constraint nodes_backend_mount_fkey',
      `alter table filestore.nodes add constraint nodes_backend_mount_fkey
         foreign key (root_of_mount_id) references filestore.backend_mounts (id) not valid`,
    ],
    named: ['guard switched off'],
  },
  {
    rule: 'The guards apply to the owner too',
    what: 'a domain whose check is not validated',
    off,
    sql: [
      'alter domain filestore.node_kind drop constraint node_kind_check',
      "alter domain filestore.node_kind add constraint node_kind_check check (value in ('file', 'directory')) not valid",
    ],
    named: ['guard switched off'],
  },
];
