import type { Session } from './interleave.ts';

type Level = 'service' | 'operator' | 'owner';

/** What anybody may call, by a short name: its level, and its statement. `<a/f>` is an id (world.ts). */
type Operation = readonly [level: Level, statement: string];

const returning =
  (columns: string) =>
  (level: Level, call: string): Operation => [level, `select ${columns} from filestore.${call}`];
const node = (call: string): Operation => returning('path, version, state')('service', call);
const quiet = (level: Level, call: string): Operation => returning('1 as done')(level, call);
/** A part of the import that has begun. */
const importing = (call: string): Operation => [
  'owner',
  `select 1 as done from filestore.imports i cross join lateral filestore.${call} c where i.finished_at is null`,
];
const entry = (call: string): Operation => returning('status, result')('service', call);

export const OPERATIONS: Readonly<Record<string, Operation>> = {
  'create a/new': node("create_node(<a>, 'new', size_bytes => 1)"),
  'create a/s/new': node("create_node(<a/s>, 'new', size_bytes => 2)"),
  'create directory e/new': node("create_node(<e>, 'new', 'directory')"),
  'create /new': node("create_node(</>, 'new')"),
  'create n:new': node("create_node(<n:/>, 'new')"),
  'create z:x/new': node("create_node(<z:x>, 'new')"),
  'ensure a/new/deep': node("ensure_directory('m', 'a/new/deep')"),
  'ensure e/new': node("ensure_directory('m', 'e/new')"),
  'create_nodes in a and e': node(
    `create_nodes('[{"parent_id": <e>, "name": "new"}, {"parent_id": <a>, "name": "new", "size_bytes": 3}]')`,
  ),
  'create_nodes in a/s': node(
    `create_nodes('[{"parent_id": <a/s>, "name": "new"}, {"parent_id": <a/s>, "name": "new2"}]')`,
  ),
  'upsert a/new': node("upsert_file('m', 'a/new', 5)"),
  'upsert a/f': node("upsert_file('m', 'a/f', 6)"),
  'upsert a/f as it was at 1': node(
    "upsert_file('m', 'a/f', 7, expected_version => 1, expected_id => <a/f>)",
  ),
  'upsert a/dead': node("upsert_file('m', 'a/dead', 7, expected_version => 0)"),
  'upsert gone/x': node("upsert_file('m', 'gone/x', 8)"),
  'upsert a/s/h seen': node("upsert_file('m', 'a/s/h', 9, last_seen_at => '2020-01-01')"),
  'upsert z:x/y': node("upsert_file('z', 'x/y', 9)"),
  'upsert directory a': node(`upsert_directory('m', 'a', '{"album": 1}')`),
  'upsert directory a/f': node("upsert_directory('m', 'a/f', replace_file => true)"),
  'upsert directory e/new': node(`upsert_directory('m', 'e/new', '{"album": 2}')`),
  'merge a/f': node(`merge_metadata(<a/f>, '{"x": 1}')`),
  'merge a': node(`merge_metadata(<a>, '{"x": 2}', '{k}')`),
  'merge a/s/h at 2': node(`merge_metadata(<a/s/h>, '{"x": 3}', expected_version => 2)`),
  'update a/f': node(`update_nodes('[{"id": <a/f>, "size_bytes": 61}]')`),
  'update a/g and a/f': node(
    `update_nodes('[{"id": <a/g>, "size_bytes": 62, "expected_version": 4}, {"id": <a/f>, "metadata": {"u": 1}}]')`,
  ),
  'update a/s/h and b/f': node(
    `update_nodes('[{"id": <b/f>, "size_bytes": 63}, {"id": <a/s/h>, "state": "missing"}]')`,
  ),
  'states of a/f and a/s/h': node("set_states('{<a/s/h>,<a/f>}', 'inconsistent')"),
  'find lost': node("set_states('{<lost>}', 'active')"),
  'state of a by update': [
    'service',
    "update filestore.nodes set state = 'missing' where id = <a> and live returning path, version",
  ],
  'move a/f to b/g': node("move_node(<a/f>, <b>, 'g')"),
  'move a/f to b': node('move_node(<a/f>, <b>)'),
  'rename a/f to new': node("move_node(<a/f>, new_name => 'new')"),
  'rename a/f at 1': node("move_node(<a/f>, new_name => 'f1', expected_version => 1)"),
  'move a to b': node('move_node(<a>, <b>)'),
  'move b to a/s': node('move_node(<b>, <a/s>)'),
  'move a/s to e': node('move_node(<a/s>, <e>)'),
  'move a/s to /': node('move_node(<a/s>, </>)'),
  'rename a to new': node("move_node(<a>, new_name => 'new')"),
  'rename e to new': node("move_node(<e>, new_name => 'new')"),
  'move a to b by update': [
    'service',
    'update filestore.nodes set parent_id = <b> where id = <a> and live returning path, version',
  ],
  'copy a to e': node('copy_tree(<a>, <e>)'),
  'copy a over b': node("copy_tree(<a>, </>, 'b', on_conflict => 'overwrite')"),
  'copy a beside b': node("copy_tree(<a>, </>, 'b', on_conflict => 'skip')"),
  'copy a/f to b/f': node("copy_tree(<a/f>, <b>, on_conflict => 'overwrite')"),
  'copy a to n': node('copy_tree(<a>, <n:/>)'),
  'delete a/f': node('delete_node(<a/f>)'),
  'delete a/s/h': node('delete_node(<a/s/h>)'),
  'delete e': node('delete_node(<e>)'),
  'delete a/s': node('delete_node(<a/s>, recursive => true)'),
  'delete a': node('delete_node(<a>, recursive => true)'),
  'delete b at 1': node('delete_node(<b>, 1, true)'),
  'delete a in batches': returning('b')('service', "delete_batch(<a>, 3, '2020-01-01') b"),
  'restore a/dead': node('restore_node(<~a/dead>)'),
  'restore gone': node('restore_node(<~gone>, with_tree => true)'),
  'restore gone alone': node('restore_node(<~gone>)'),
  'restore gone/x': node('restore_node(<~gone/x>)'),
  'restore a/s': node('restore_node(<a/s>, with_tree => true)'),
  'restore z:x/dead': node('restore_node(<z:~x/dead>)'),
  'revert a/g to 1': node('revert_node(<a/g>, 1)'),
  'revert a/g to 3': node('revert_node(<a/g>, 3, 4)'),
  'see a/f and b/f': quiet('service', "record_sightings('{<b/f>,<a/f>}', '2020-01-02')"),
  'see a/dead': quiet('service', "record_sightings('{<~a/dead>,<a/f>}', '2020-01-03', '2020-01-03')"),
  'see n': quiet('service', "record_sightings('{<n:/>}', '2020-01-04')"),
  'see z:x/y': quiet('service', "record_sightings('{<z:x/y>,<z:x>}', '2020-01-05')"),
  fold: quiet('service', 'fold_rollups()'),
  'fold one': quiet('service', 'fold_rollups(1)'),
  recount: quiet('operator', "recount_rollups('m')"),
  'recount n': quiet('operator', "recount_rollups('n')"),
  purge: quiet('operator', "purge_deleted('0')"),
  'purge one': quiet('operator', "purge_deleted('0', 1)"),
  'prune history': quiet('operator', "prune_history('0', 1)"),
  'prune journal': quiet('operator', "prune_journal('0')"),
  'read totals': returning('node_id, size_bytes, file_count, child_count')(
    'service',
    "list_totals('{</>,<a>,<b>}')",
  ),
  'begin again': returning('is_new, (entry).status')(
    'service',
    "begin_command('job', idempotency_key => 'job')",
  ),
  'begin new': returning('is_new, (entry).status')(
    'service',
    "begin_command('new', idempotency_key => 'new')",
  ),
  'begin new otherwise': returning('is_new, (entry).status')(
    'service',
    `begin_command('new', '{"p": 1}', idempotency_key => 'new')`,
  ),
  'begin for n': returning('is_new, (entry).status')(
    'service',
    "begin_command('new', mount_id => <mount n>)",
  ),
  'start queued': entry('start_command(<command queued>)'),
  'finish job': entry(`finish_command(<command job>, 'succeeded', '{"r": 1}')`),
  'fail job': entry(`finish_command(<command job>, 'failed', error => '{"e": 1}')`),
  'expire commands': returning('command')('service', "expire_commands('0')"),
  'begin scan of m': quiet('service', "begin_scan('m')"),
  'begin scan of a': quiet('service', "begin_scan('m', 'a')"),
  'begin scan of z': quiet('service', "begin_scan('z', 'new')"),
  'record entries': quiet('service', `record_entries(<scan m>, '[{"path": "s", "kind": "directory"}]')`),
  'cancel scan': returning('state')('service', 'cancel_scan(<scan m>)'),
  'expire scans': quiet('service', 'expire_scans()'),
  'apply scan': returning('state')('service', 'apply_scan(<scan m>)'),
  'sync z': returning('path, version, outcome')(
    'service',
    `sync_nodes('z', '[{"path": "x/y", "size_bytes": 3}]')`,
  ),
  'apply scan of n': returning('state')('service', 'apply_scan(<scan n>)'),
  'sync a': returning('path, version, outcome')(
    'service',
    `sync_nodes('m', '[{"path": "f", "size_bytes": 71}, {"path": "new", "size_bytes": 72}]', 'a')`,
  ),
  'sync b/d': returning('path, version, outcome')(
    'service',
    `sync_nodes('m', '[{"path": "d/deep", "size_bytes": 73}, {"path": "s", "kind": "directory"}]', 'b')`,
  ),
  'label m': returning('version, labels')('service', `update_mount('m', '{"labels": {"x": 1}}')`),
  'label m at 1': returning('version, labels')('service', `update_mount('m', '{"labels": {"y": 1}}', 1)`),
  'activate z': returning('version, state')('service', `update_mount('z', '{"state": "active"}')`),
  'ask for m': returning('mount_key')('service', "writable_mount('m')"),
  'create mount o': returning('mount_key')(
    'service',
    `create_mount('{"mount_key": "o", "backend_kind": "local", "root_path": "/o"}')`,
  ),
  'create mount in o': returning('mount_key')(
    'service',
    `create_mount('{"mount_key": "in-o", "backend_kind": "local", "root_path": "/o/in"}')`,
  ),
  'delete mount n': quiet('operator', "delete_mount('n')"),
  'delete mount n by hand': [
    'owner',
    "delete from filestore.backend_mounts where mount_key = 'n' returning mount_key",
  ],
  'begin to erase z': returning('b')('owner', "begin_erasing('z', 2) b"),
  'erase some of z': quiet('owner', 'erase_batch(<mount z>, 2, 1000)'),
  'close m': [
    'owner',
    `select 1 as done from filestore.moves v
     cross join lateral filestore.close_mount('m', jsonb_build_object('move', v.id, 'mark', 1, 'early', v.early_digest), '1 hour') c`,
  ],
  'let time run out': [
    'owner',
    "update filestore.moves set closed_until = now() - interval '1 second' returning 1",
  ],
  'release m': [
    'owner',
    `select 1 as done from filestore.moves v
     cross join lateral filestore.release_mount('m', jsonb_build_object(
       'move', v.id, 'mark', 1, 'attempt', v.attempt, 'late', filestore.digest_mount(v, true))) r`,
  ],
  'begin import': [
    'owner',
    "select 1 as done from filestore.begin_import('z', 'old.nodes', 'old.versions', null, true, 1000)",
  ],
  arrange: importing('arrange_staged(i.id)'),
  'take first': importing('take_nodes(i.id, 1, 2, true)'),
  'take rest': importing('take_nodes(i.id, 3, 1000, true)'),
  'end import': [
    'owner',
    'update filestore.imports set finished_at = now() where finished_at is null returning 1',
  ],
  'delete z:x': node('delete_node(<z:x>, recursive => true)'),
  'move z:x to z:d': node('move_node(<z:x>, <z:d>)'),
  'move z:d/g to z:x': node('move_node(<z:d/g>, <z:x>)'),
  'delete mount z': quiet('operator', "delete_mount('z')"),
  'merge z:i': node(`merge_metadata(<z:i>, '{"x": 4}')`),
  'lock m': quiet('service', 'lock_tree(<mount m>, true)'),
  'lock m shared': quiet('service', 'lock_tree(<mount m>, false)'),
  'finish queued': entry("finish_command(<command queued>, 'succeeded')"),
  'work on queued': quiet('service', 'begin_work(<command queued>)'),
  'work on job': quiet('service', 'begin_work(<command job>)'),
};

const RANKS: readonly Level[] = ['service', 'operator', 'owner'];

const UNDONE = / ~$/;
const REPEATABLE = / at repeatable read$/;

/**
 * A session by its name: operations with ` + ` in one transaction and with `; ` in separate ones, ` ~` at the end to roll
 * back, or ` at repeatable read`.
 */
export function sessionOf(name: string): Session {
  const isUndone = UNDONE.test(name);
  const transactions = name.replace(UNDONE, '').replace(REPEATABLE, '').split('; ');
  return {
    name,
    isolation: REPEATABLE.test(name) ? 'repeatable read' : undefined,
    transactions: transactions.map((names) => {
      const operations = names.split(' + ').map((each) => {
        const operation = OPERATIONS[each];
        if (operation === undefined) throw new Error(`no operation is called "${each}"`);
        return operation;
      });
      const levels = operations.map(([level]) => level);
      return {
        statements: operations.map(([, statement]) => statement),
        level: RANKS.findLast((level) => levels.includes(level)) ?? 'service',
        end: isUndone ? 'rollback' : 'commit',
      };
    }),
  };
}
