import { COMMANDS } from './journal.ts';
import { type Choice, expectNumber, type Operation, statement } from './model-operation.ts';
import { isLive, Refused } from './node.ts';
import { Random } from './random-choices.ts';

export function callFold({ random }: Choice): Operation {
  const max = random.chance(0.03) ? 0 : random.pick([1, 2, 5, 20, 10_000]);
  let pending = 0;
  return {
    name: 'fold_rollups',
    text: `select filestore.fold_rollups(${max})`,
    isFirstWrite: true,
    run: async (sql) => {
      pending = (await sql.query('select count(*)::integer as pending from filestore.rollup_deltas')).rows[0]
        .pending;
      return (await sql.query('select filestore.fold_rollups($1) as folded', [max])).rows;
    },
    expect: ([row]) => {
      if (max < 1) throw new Refused('FS422');
      expectNumber(row?.folded, Math.min(max, pending));
    },
  };
}

export function callRecount({ model, random }: Choice): Operation {
  const key = random.chance(0.1) ? 'nowhere' : random.pick(model.mounts).key;
  const recount = statement(
    'recount_rollups',
    'select filestore.recount_rollups($1) as wrong',
    [key],
    ([row]) => {
      if (key === 'nowhere') throw new Refused('FS404');
      expectNumber(row?.wrong, 0);
    },
  );
  return { ...recount, isFirstWrite: true };
}

const ALL = 10_000;

/** The oldest superseded versions of live nodes. What was written since a running scan began stays. */
export function callPruneHistory({ model, random }: Choice): Operation {
  const keep = random.below(3);
  const batch = random.pick([1, 5, ALL]);
  return {
    name: 'prune_history',
    text: `select filestore.prune_history('0', ${keep}, ${batch})`,
    isFirstWrite: true,
    run: async (sql) => {
      let pruned = 0;
      let last = 0;
      do {
        const { rows } = await sql.query("select filestore.prune_history('0', $1, $2) as pruned", [
          keep,
          batch,
        ]);
        last = rows[0].pruned;
        pruned += last;
        // Each call continues where the last one ended.
      } while (batch === ALL && last > 0);
      const left = await sql.query(
        'select id, count(*)::integer as past from filestore.snapshots group by id',
      );
      return [{ pruned }, ...left.rows];
    },
    expect: ([row, ...left]) => {
      const past = new Map(left.map((node) => [Number(node.id), Number(node.past)]));
      let sum = 0;
      for (const node of model.nodes.values()) {
        const removed = node.past.length - (past.get(node.id) ?? 0);
        const known = model.scan === null ? node : model.scan.before.get(node.id);
        const ended = node.past.filter(({ version }) => version.version < (known?.version ?? 0)).length;
        const most = isLive(node) ? Math.min(node.past.length - keep, ended) : 0;
        const isRight = batch === ALL ? removed === Math.max(most, 0) : removed <= Math.max(most, 0);
        if (!isRight) throw new Error(`${removed} versions of node ${node.id} were pruned, expected ${most}`);
        model.forget(node.id, removed);
        sum += removed;
      }
      if (sum > batch) throw new Error(`${sum} versions were pruned by ${batch}`);
      expectNumber(row?.pruned, sum);
    },
  };
}

/** Following changes are recorded under a new journal entry, or none. */
export function changeJournalEntry({ model, random }: Choice): Operation {
  const ended = random.chance(0.4) ? model.journalEntry : null;
  // A separate generator, so that the choices for commands do not change the operations of a seed.
  const named = new Random(model.commands.length);
  const nodes = [...model.nodes.keys()];
  const command = model.commands.find(({ id }) => id === ended);
  if (command !== undefined) {
    const status = named.pick(['succeeded', 'canceled'] as const);
    const affected = named.some(nodes, named.below(4));
    return statement(
      'finish_command',
      'select filestore.finish_command($1, $2, affected_node_ids => $3)',
      [command.id, status, affected],
      () => {
        model.journalEntry = null;
        command.status = status;
        command.nodes.push(...affected);
      },
    );
  }
  const [name, mountId] = [named.pick(COMMANDS), named.pick([null, ...model.mounts.map(({ id }) => id)])];
  const [primary, secondary] = [named.pick([null, ...nodes]), named.pick([null, ...nodes])];
  return statement(
    'begin_command',
    `select (entry).id
     from filestore.begin_command($1, mount_id => $2, primary_node_id => $3, secondary_node_id => $4)`,
    [name, mountId, primary, secondary],
    ([row]) => {
      const id = Number(row?.id);
      model.journalEntry = id;
      const parts = [primary, secondary].filter((node) => node !== null);
      model.commands.push({ id, name, mountId, status: 'running', nodes: parts });
    },
  );
}
