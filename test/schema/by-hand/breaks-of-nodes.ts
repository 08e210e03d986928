/** A way to break a promise of docs/schema.md by hand. */
export interface Break {
  /** The beginning of the rule in docs/schema.md. */
  readonly rule: string;
  readonly what: string;
  /**
   * What is off: all triggers and keys, the one trigger that is named, or nothing, as for a table without triggers. All is
   * the default.
   */
  readonly off?: string;
  /** `:a`, `:b`, `:f` and others are ids of the rows that the test creates. */
  readonly sql: readonly string[];
  /** What check_integrity() then names. Empty: it cannot see it, as docs/upkeep.md says. */
  readonly named: readonly string[];
  /** What the reader of docs/upkeep.md has to choose, beside a directory and a name. */
  readonly chosen?: Readonly<Record<string, string>>;
}

const LONG = "repeat('n', 300)";
const FILE =
  'insert into filestore.nodes (backend_mount_id, parent_id, parent_path, parent_live, name, path, depth, kind';

export const BREAKS_OF_NODES: readonly Break[] = [
  {
    rule: "a live node's parent exists",
    what: 'a path that does not follow from parent and name',
    sql: [
      "update filestore.nodes set parent_path = 'elsewhere', path = 'elsewhere/f', depth = 2 where id = :f",
    ],
    named: ['path mismatch'],
  },
  {
    rule: "a live node's parent exists",
    what: 'a directory in the root whose path does not follow from its name',
    sql: [
      "update filestore.nodes set parent_path = 'z', path = 'z/lost', depth = 2, directory_path = 'z/lost' where id = :lost",
    ],
    named: ['path mismatch'],
  },
  {
    rule: "a live node's parent exists",
    what: 'a node whose parent does not exist',
    sql: ['delete from filestore.nodes where id = :b'],
    named: ['orphan', 'sighting of no node', 'totals of no directory', 'wrong totals'],
  },
  {
    rule: "a live node's parent exists",
    what: 'a tombstone whose parent does not exist',
    sql: ['delete from filestore.nodes where id = :old'],
    named: ['history of no node', 'orphan', 'sighting of no node', 'totals of no directory'],
  },
  {
    rule: "a live node's parent exists",
    what: 'a deleted directory whose parent does not exist, with a tombstone in it',
    sql: ['update filestore.nodes set parent_id = 999999 where id = :old'],
    named: ['orphan'],
  },
  {
    rule: "a live node's parent exists",
    what: 'a live node below a deleted one',
    sql: [
      "update filestore.nodes set state = 'deleted', deleted_at = now(), live = false, parent_live = null where id = :b",
    ],
    named: ['live below deleted', 'wrong totals'],
  },
  {
    rule: "a live node's parent exists",
    what: 'a node below a file',
    sql: [`${FILE}) values (:mount, :f, 'a/b/f', true, 'g', 'a/b/f/g', 4, 'file')`],
    named: ['parent is a file', 'wrong totals'],
  },
  {
    rule: "a live node's parent exists",
    what: 'a file that became the parent of a node',
    sql: [
      "update filestore.nodes set kind = 'file', directory_path = null where id = :b",
      'delete from filestore.rollups where node_id = :b',
    ],
    named: ['parent is a file', 'wrong totals'],
  },
  {
    rule: "a live node's parent exists",
    what: 'a node whose parent is on another mount',
    sql: ['update filestore.nodes set backend_mount_id = :other where id = :f'],
    named: ['history on another mount', 'parent on another mount'],
  },
  {
    rule: 'a rename or move also moves the subtree',
    what: 'a directory that is renamed without the nodes below it',
    sql: ["update filestore.nodes set name = 'z', path = 'z', directory_path = 'z' where id = :a"],
    named: ['path mismatch'],
  },
  {
    rule: 'a directory is not moved below itself',
    what: 'directories in a ring',
    sql: [
      `update filestore.nodes
       set parent_id = :b, parent_path = 'a/b', path = 'a/b/a', depth = 3, directory_path = 'a/b/a' where id = :a`,
    ],
    named: ['cycle', 'path mismatch', 'wrong totals'],
  },
  {
    rule: 'a directory is not moved below itself',
    what: 'deleted directories in a ring',
    sql: [
      `insert into filestore.nodes
         (backend_mount_id, parent_id, parent_path, live, state, deleted_at, name, path, directory_path, depth, kind)
       values (:mount, :old, 'a/old', false, 'deleted', now(), 'r', 'a/old/r', 'a/old/r', 3, 'directory')`,
      "update filestore.nodes set parent_id = (select max(id) from filestore.nodes where name = 'r') where id = :old",
    ],
    named: ['cycle', 'wrong totals'],
  },
  {
    rule: 'at most one live node per path',
    what: 'two live nodes at one path',
    sql: [
      "update filestore.nodes set parent_id = :other_root, parent_path = 'a/b', name = 'f' where id = :f",
      `${FILE}) values (:mount, :b, 'a/b', true, 'f', 'a/b/f', 3, 'file')`,
    ],
    named: ['duplicate live path', 'parent on another mount', 'wrong totals'],
  },
  {
    rule: 'one root per mount',
    what: 'a mount without a root',
    sql: ['delete from filestore.nodes where id = :root'],
    named: ['mount without a root', 'orphan', 'sighting of no node', 'totals of no directory'],
  },
  {
    rule: 'a name is not empty',
    what: 'a name that is too long for a disk',
    sql: [`update filestore.nodes set name = ${LONG}, path = 'a/b/' || ${LONG} where id = :f`],
    named: ['name too long'],
  },
  {
    rule: 'a node is created live',
    what: 'a node that is created at a later version',
    sql: [`${FILE}, version) values (:mount, :b, 'a/b', true, 'g', 'a/b/g', 3, 'file', 4)`],
    named: ['missing version', 'wrong totals'],
  },
  {
    rule: 'a node is created live',
    what: 'a node that is created in the future',
    sql: [`${FILE}, updated_at) values (:mount, :b, 'a/b', true, 'g', 'a/b/g', 3, 'file', 'infinity')`],
    named: ['moment in the future', 'wrong totals'],
  },
  {
    rule: 'a node is created live',
    what: 'a node that is created without a trace in the totals',
    off: 'nodes_record_created',
    sql: [
      "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) values (:mount, :b, 'g', 'directory')",
    ],
    named: ['wrong totals'],
  },
  {
    rule: 'a node is created live',
    what: 'a long name that the insert did not look at',
    off: 'nodes_prepare_insert',
    sql: [`${FILE}) values (:mount, :b, 'a/b', true, ${LONG}, 'a/b/' || ${LONG}, 3, 'file')`],
    named: ['name too long'],
  },
  {
    rule: 'a node is created live',
    what: 'a node that is created as a tombstone',
    sql: [
      `${FILE}, live, state, deleted_at) values (:mount, :b, 'a/b', null, 'g', 'a/b/g', 3, 'file', false, 'deleted', now())`,
    ],
    named: [],
  },
  {
    rule: 'states change along',
    what: 'an illegal change of state',
    off: 'nodes_prepare_update',
    sql: [
      "update filestore.nodes set state = 'missing' where id = :f",
      "update filestore.nodes set state = 'inconsistent' where id = :f",
    ],
    named: [],
  },
  {
    rule: 'states change along',
    what: 'a deletion in the future',
    sql: ["update filestore.nodes set deleted_at = 'infinity' where id = :gone"],
    named: ['moment in the future'],
  },
  {
    rule: 'a directory with a live child cannot be deleted',
    what: 'a deleted directory with live children',
    sql: [
      "update filestore.nodes set state = 'deleted', deleted_at = now(), live = false, parent_live = null where id = :a",
    ],
    named: ['live below deleted', 'wrong totals'],
  },
  {
    rule: 'a deleted node keeps its place',
    what: 'a tombstone that was moved',
    sql: [
      "update filestore.nodes set parent_id = :b, parent_path = 'a/b', path = 'a/b/gone', depth = 3 where id = :gone",
    ],
    named: [],
  },
  {
    rule: '`version` increases at every change; callers cannot choose it',
    what: 'a version that is too high',
    sql: ['update filestore.nodes set version = 9 where id = :f'],
    named: ['missing version'],
  },
  {
    rule: '`version` increases at every change; callers cannot choose it',
    what: 'a version that is too low',
    sql: ['update filestore.nodes set version = 1 where id = :f'],
    named: ['version after the current one'],
  },
  {
    rule: '`version` increases at every change; callers cannot choose it',
    what: 'a change without a version',
    off: 'nodes_set_version',
    sql: ['update filestore.nodes set metadata = \'{"a": 1}\' where id = :f'],
    named: [],
  },
  {
    rule: '`id`, `backend_mount_id`, `kind`, `created_at` never change',
    what: 'a node with another id',
    sql: [
      'alter table filestore.nodes alter id set generated by default',
      'update filestore.nodes set id = 999998 where id = :f',
      'alter table filestore.nodes alter id set generated always',
    ],
    named: ['history of no node', 'missing version', 'sequence behind its table', 'sighting of no node'],
  },
  {
    rule: '`id`, `backend_mount_id`, `kind`, `created_at` never change',
    what: 'a file that became a directory',
    sql: [
      "update filestore.nodes set kind = 'directory', directory_path = path, size_bytes = 0 where id = :f",
    ],
    named: ['history of another node', 'wrong totals'],
  },
  {
    rule: '`id`, `backend_mount_id`, `kind`, `created_at` never change',
    what: 'another moment of creation',
    off: 'nodes_keep_columns',
    sql: ["update filestore.nodes set created_at = created_at - interval '1 day' where id = :f"],
    named: ['history of another node'],
  },
  {
    rule: 'only tombstones can be removed',
    what: 'a live node that was removed',
    sql: ['delete from filestore.nodes where id = :f'],
    named: ['history of no node', 'sighting of no node', 'wrong totals'],
  },
  {
    rule: 'only tombstones can be removed',
    what: 'a live node that was removed with its history',
    off: 'nodes_guard_removal',
    sql: ['delete from filestore.nodes where id = :f'],
    named: ['wrong totals'],
  },
  {
    rule: 'only tombstones can be removed',
    what: 'a directory that was removed with its pending totals',
    off: 'nodes_guard_totals',
    sql: [
      "select filestore.purge_deleted('0')",
      "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) values (:mount, :b, 'g', 'directory')",
      "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) select :mount, id, 'h', 'file' from filestore.nodes where name = 'g'",
      "select filestore.delete_node(id, recursive => true) from filestore.nodes where name = 'g'",
      "delete from filestore.nodes where name in ('g', 'h')",
    ],
    named: ['delta of no directory'],
  },
  {
    rule: 'only tombstones can be removed',
    what: 'a truncated table of nodes',
    off: 'nodes_refuse_truncate',
    sql: ['truncate filestore.nodes'],
    named: ['history of no node', 'mount without a root', 'sighting of no node', 'totals of no directory'],
  },
  {
    rule: 'history, totals and sightings are removed with their node',
    what: 'a purge that leaves the records of a node',
    off: 'nodes_remove_records',
    sql: ["select filestore.purge_deleted('0')"],
    named: ['history of no node', 'sighting of no node', 'totals of no directory'],
  },
];
