import { Refused } from './node.ts';
import { type Choice, expectNumber, type Operation, statement } from './operation.ts';

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

/** The changes that follow belong to a new entry of the journal, or to none. */
export function changeJournalEntry({ model, random }: Choice): Operation {
  const ended = random.chance(0.4) ? model.journalEntry : null;
  if (ended !== null) {
    return statement('finish_command', "select filestore.finish_command($1, 'succeeded')", [ended], () => {
      model.journalEntry = null;
    });
  }
  return statement(
    'begin_command',
    "select (entry).id from filestore.begin_command('model')",
    [],
    ([row]) => {
      model.journalEntry = Number(row?.id);
    },
  );
}
