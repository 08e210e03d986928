import type { Client } from 'pg';
import { type Checkpoint, checkpoint, differences, slowDifferences } from './differences.ts';
import type { Operation, Rows } from './model-operation.ts';
import { type Mount, NO_CONTENT, Refused } from './node.ts';
import { anyOperation } from './operations.ts';
import { Model } from './plain-model.ts';
import { Random } from './random-choices.ts';

export interface SequenceOptions {
  readonly seed: number;
  readonly steps: number;
}

/** How often each operation succeeded and, by SQLSTATE, was refused. */
export type Tally = Map<string, Map<string, number>>;

/** The number of steps between two slow comparisons. */
const SLOW_EVERY = 50;
const SHOWN = 15;

/**
 * Runs random operations on the database and on the model, and compares them after each. Needs a migrated and empty
 * database. The operations depend only on the seed. Throws at the first difference.
 */
export async function runSequence(sql: Client, { seed, steps }: SequenceOptions): Promise<Tally> {
  const random = new Random(seed);
  const model = await createModel(sql);
  const done: string[] = [];
  const checkpoints: Checkpoint[] = [];
  const tally: Tally = new Map();

  for (let step = 1; step <= steps; step += 1) {
    const operation = anyOperation({ model, random });
    const directoryId = random.pick([...model.nodes.keys()]);
    done.push(`${step}: ${operation.text}`);
    try {
      const outcome = await carryOut(sql, model, operation);
      done.push(`${done.pop()}  → ${outcome}`);
      count(tally, operation.name, outcome);
      refuseDifference(await differences(sql, model, directoryId));
      if (step % SLOW_EVERY === 0 || step === steps) {
        checkpoints.push(await checkpoint(sql, model));
        refuseDifference(await slowDifferences(sql, model, checkpoints));
      }
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(
        `Seed ${seed}, step ${step} (${operation.name}): ${reason}\n\nThe last steps:\n${done.slice(-SHOWN).join('\n')}\n\nAgain: MODEL_SEED=${seed} MODEL_STEPS=${step}`,
        { cause: error },
      );
    }
  }
  return tally;
}

async function createModel(sql: Client): Promise<Model> {
  await sql.query("set timezone = 'UTC'");
  // Compiling a query takes longer than reading so few nodes.
  await sql.query('set jit = off');
  const { rows } = await sql.query(`
    with mounts as (
      insert into filestore.backend_mounts (mount_key, backend_kind, root_path, bucket)
      values ('disk', 'local', '/data', null), ('cloud', 's3', null, 'bucket')
      returning id, mount_key, backend_kind
    )
    select * from mounts order by id`);
  const mounts = rows.map(
    (row): Mount => ({ id: Number(row.id), key: row.mount_key, kind: row.backend_kind }),
  );
  const roots = await sql.query('select id, backend_mount_id from filestore.nodes order by id');
  return new Model(
    mounts,
    roots.rows.map((row) => ({
      id: Number(row.id),
      mountId: Number(row.backend_mount_id),
      parentId: 0,
      name: '',
      kind: 'directory',
      content: NO_CONTENT,
    })),
  );
}

/** Runs an operation on both, and returns "done", or the SQLSTATE on which both agree. */
async function carryOut(sql: Client, model: Model, operation: Operation): Promise<string> {
  const before = model.nodes;
  let rows: Rows = [];
  let refusal: { readonly code?: string; readonly message: string } | undefined;
  try {
    rows = await runFor(model.journalEntry, sql, operation);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    refusal = error;
  }
  try {
    operation.expect(rows);
  } catch (error) {
    model.nodes = before;
    if (error instanceof Refused) {
      if (refusal?.code !== undefined && error.codes.includes(refusal.code)) return refusal.code;
      throw new Error(`expected to be refused with ${error.message}, but ${describeOutcome(refusal)}`);
    }
    if (refusal === undefined) throw error;
  }
  if (refusal !== undefined) throw new Error(`expected to succeed, but ${describeOutcome(refusal)}`);
  return 'done';
}

/** Runs an operation in one transaction, under the current journal entry if there is one. */
async function runFor(journalEntry: number | null, sql: Client, operation: Operation): Promise<Rows> {
  if (journalEntry === null || operation.isFirstWrite) return operation.run(sql);
  await sql.query('begin');
  try {
    await sql.query('select filestore.begin_work($1)', [journalEntry]);
    const rows = await operation.run(sql);
    await sql.query('commit');
    return rows;
  } catch (error) {
    await sql.query('rollback');
    throw error;
  }
}

const describeOutcome = (
  refusal: { readonly code?: string; readonly message: string } | undefined,
): string =>
  refusal === undefined ? 'it succeeded' : `it was refused with ${refusal.code}: ${refusal.message}`;

function refuseDifference(text: string): void {
  if (text !== '') throw new Error(`the database differs from the model:\n${text}`);
}

function count(tally: Tally, name: string, outcome: string): void {
  const outcomes = tally.get(name) ?? new Map<string, number>();
  outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  tally.set(name, outcomes);
}
