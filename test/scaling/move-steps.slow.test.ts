import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { until } from '../support/until.ts';
import { outcomeOfProbe, probesOf, stepOn } from './move-probes.ts';
import { NO_ROWS, newWalk, restoreOf, rowsOf, takersOf } from './small-mounts.ts';
import { startTwoDatabases, type TwoDatabases } from './two-databases.ts';
import { type MoveWalk, STEPS, type Step } from './walk-move.ts';

let databases: TwoDatabases;
beforeAll(async () => {
  databases = await startTwoDatabases();
}, 120_000);
afterAll(() => databases?.stop());

const mountIdOf = ({ receipts }: MoveWalk) =>
  (receipts.ticket?.mount as { readonly id: number } | undefined)?.id;
const placesOf = (walk: MoveWalk) =>
  [
    ['source', walk.source, walk.target],
    ['target', walk.target, walk.source],
  ] as const;

/** Effects by function, server and step. */
type Effects = Map<string, Set<string>>;

/** Tries every function on both servers, and undoes it. A refusal says what is next. */
async function probe(walk: MoveWalk, effects: Effects): Promise<void> {
  for (const [place, database, peer] of placesOf(walk)) {
    const step = await stepOn(database, walk);
    for (const call of probesOf(walk.key, walk.receipts, peer.number)) {
      const { effect, hint } = await outcomeOfProbe(database, walk.key, call);
      if (effect === 'refused') expect(hint, `${call.name} at ${place} ${step}`).toMatch(/\w{4}/);
      const cell = `${call.name} ${place} ${step}`;
      effects.set(cell, (effects.get(cell) ?? new Set()).add(effect));
    }
  }
}

/** Until the mount is on the target. Otherwise it might arrive while a call is tried. */
async function untilArrived({ key, target }: MoveWalk): Promise<void> {
  const mounts = 'select from filestore.backend_mounts where mount_key = $1';
  await until(async () => (await target.query(mounts, [key])).length > 0);
}

/** Until the target could prove what it has. */
async function untilCopied({ key, target }: MoveWalk): Promise<void> {
  const prove = { name: 'prove_mount', text: 'select filestore.prove_mount($1)', values: [key] };
  await until(async () => (await outcomeOfProbe(target, key, prove)).effect === '→ proved');
}

/** A call with receipts of another move changes nothing. */
async function probeWithReceiptsOf(other: MoveWalk, walk: MoveWalk): Promise<void> {
  const takesReceipt = ['close_mount', 'release_mount', 'receive_mount', 'finish_move'];
  for (const [place, database, peer] of placesOf(walk)) {
    const step = await stepOn(database, walk);
    for (const call of probesOf(walk.key, other.receipts, peer.number)) {
      if (!takesReceipt.includes(call.name) || call.values[1] === null) continue;
      // The target's own finish_move takes none.
      if (call.name === 'finish_move' && place === 'target') continue;
      const { effect } = await outcomeOfProbe(database, walk.key, call);
      expect(['refused', 'same'], `${call.name} at ${place} ${step}`).toContain(effect);
    }
  }
}

describe('a move', () => {
  test('has one database that takes writes at every step, and carries all rows over', async () => {
    const walk = await newWalk(databases);
    const takers: Record<string, string> = {};
    let rows: unknown;
    for (const step of STEPS) {
      if (step === 'close') rows = await rowsOf(walk.source, mountIdOf(walk));
      await walk.run(step);
      takers[step] = await takersOf(walk);
    }
    const before = STEPS.slice(0, STEPS.indexOf('close')).map((step) => [step, 'source']);
    const after = STEPS.slice(STEPS.indexOf('receive')).map((step) => [step, 'target']);
    expect(takers).toEqual({
      ...Object.fromEntries(before),
      close: '',
      'prove late': '',
      // The release may not have arrived.
      release: expect.stringMatching(/^(target)?$/),
      ...Object.fromEntries(after),
    });
    expect(await rowsOf(walk.target, mountIdOf(walk))).toEqual(rows);
    expect(await rowsOf(walk.source, mountIdOf(walk))).toEqual(NO_ROWS);
    await walk.target.query('select filestore.recount_rollups($1)', [walk.key]);
    for (const { query } of [walk.source, walk.target]) {
      expect(await query('select * from filestore.check_integrity()')).toEqual([]);
    }
  }, 20_000);

  test('is opened by a writer on the target when the release has arrived, without a call of receive_mount', async () => {
    const walk = await (await newWalk(databases)).to('release');
    await expect.poll(() => takersOf(walk), { timeout: 20_000 }).toBe('target');
    await walk.through('receive');
  }, 20_000);
});

test('every function is refused, or does the same again, except for those that docs/scaling.md lists at a step', async () => {
  const effects: Effects = new Map();
  const there = await newWalk(databases);
  for (const step of STEPS) {
    await there.run(step);
    if (step === 'subscribe') await untilArrived(there);
    if (step === 'prove source') await untilCopied(there);
    await probe(there, effects);
    // The first call of prove_mount sets the mark.
    if (step === 'subscribe') {
      await there.source.query('select filestore.prove_mount($1)', [there.key]);
      await probe(there, effects);
    }
  }
  const back = await (await newWalk(databases)).to('prove late');
  await back.run('unsubscribe');
  await probe(back, effects);
  const cancel = ({ query }: MoveWalk['source']) =>
    query('select filestore.cancel_step($1, null, 1000)', [back.key]);
  for (const database of [back.target, back.source]) {
    await cancel(database);
    await probe(back, effects);
    while (!(await stepOn(database, back)).endsWith('canceled')) await cancel(database);
    await probe(back, effects);
  }
  await back.cancel();

  const { rows: steps } = await databases.one.client.query('select * from filestore.move_steps()');
  const section = documentSection('Steps and ways out');
  expect(tableAfter(section, '| server')).toEqual(
    tableOf(
      ['server', 'step', 'meaning', 'forward', 'back'],
      steps.map((row) => Object.values(row) as string[]),
    ),
  );
  for (const place of ['source', 'target']) {
    const columns = steps.filter(({ server }) => server === place).map(({ step }) => step as string);
    expect(
      columns.filter((step) => ![...effects.keys()].some((cell) => cell.endsWith(` ${place} ${step}`))),
    ).toEqual([]);
    const rows = [...new Set([...effects.keys()].map((cell) => cell.split(' ')[0] ?? ''))].map((name) => [
      `\`${name}\``,
      ...columns.map((step) =>
        [...(effects.get(`${name} ${place} ${step}`) ?? [])]
          .filter((effect) => effect !== 'refused')
          .sort()
          .join(', '),
      ),
    ]);
    expect(tableAfter(section, `| on the ${place}`)).toEqual(tableOf([`on the ${place}`, ...columns], rows));
  }
}, 120_000);

test('a move summarizes the history on both servers, so that the cut-over reads only what is newer', async () => {
  const walk = await newWalk(databases);
  const index = "'filestore.snapshots_changed_idx'";
  for (const { query } of [walk.source, walk.target]) {
    await query(`select brin_desummarize_range(${index}, 0)`);
  }
  await walk.to('prove target');
  for (const { query } of [walk.source, walk.target]) {
    expect(await query(`select brin_summarize_new_values(${index}) as ranges`)).toEqual([{ ranges: 0 }]);
  }
}, 20_000);

test('the rows that a move compares have types whose hash is the same on every server, and no enumeration', async () => {
  const rows = await databases.one.query<{ type: string }>(
    `select distinct format_type(coalesce(nullif(t.typbasetype, 0), t.oid), null) as type
     from pg_attribute a join pg_type t on t.oid = a.atttypid
     where a.attrelid in ('filestore.backend_mounts'::regclass, 'filestore.nodes'::regclass, 'filestore.journal_entries'::regclass)
       and a.attnum > 0 and not a.attisdropped`,
  );
  const known = ['bigint', 'bigint[]', 'boolean', 'integer', 'jsonb', 'text', 'timestamp with time zone'];
  expect(rows.map(({ type }) => type).filter((type) => !known.includes(type))).toEqual([]);
  const values = `1::bigint, array[1, 2]::bigint[], true, 5, '{"a": [1.50, null, "x"]}'::jsonb, 'text'::text, '2026-01-01 00:00:00.123+00'::timestamptz`;
  const hash = `select hashint8extended(hash_record_extended(row(${values}), 0), 0)`;
  expect(await databases.one.query(hash)).toEqual([{ hashint8extended: '-1491226803768636410' }]);
});

test.each(['there', 'back'] as const)(
  'two moves at once, the other one %s, take no receipt of each other, and lose nothing',
  async (way) => {
    const walk = await newWalk(databases);
    const other = await newWalk(databases, way);
    const rows = new Map<MoveWalk, unknown>();
    for (const step of STEPS) {
      for (const each of [walk, other]) {
        if (step === 'close') rows.set(each, await rowsOf(each.source, mountIdOf(each)));
        await each.run(step);
        await probeWithReceiptsOf(walk, other);
        await probeWithReceiptsOf(other, walk);
      }
    }
    for (const each of [walk, other]) {
      expect(await rowsOf(each.target, mountIdOf(each))).toEqual(rows.get(each));
      expect(await takersOf(each)).toBe('target');
    }
  },
  20_000,
);

describe('a move can be taken back', () => {
  const END = STEPS.indexOf('release');

  test.each(STEPS.slice(0, END))(
    'after %s: the source takes writes, and nothing is left on the target',
    async (step) => {
      const walk = await (await newWalk(databases)).to(step);
      const rows = await rowsOf(walk.source, mountIdOf(walk));
      await walk.cancel();
      expect(await takersOf(walk)).toBe('source');
      expect(await rowsOf(walk.source, mountIdOf(walk))).toEqual(rows);
      expect(await rowsOf(walk.target, mountIdOf(walk))).toEqual(NO_ROWS);
      expect(
        await walk.target.query('select from filestore.backend_mounts where mount_key = $1', [walk.key]),
      ).toEqual([]);
      // Again, and then the move begins again.
      await walk.cancel();
      await walk.to('erase');
      expect(await takersOf(walk)).toBe('target');
    },
    20_000,
  );

  test('after release only with the receipt of the target', async () => {
    const walk = await (await newWalk(databases)).to('release');
    await expect(walk.source.query('call filestore.cancel_move($1)', [walk.key])).rejects.toMatchObject({
      constraint: 'moves_receipt_check',
    });
    await walk.cancel();
    expect(await takersOf(walk)).toBe('source');
  }, 20_000);

  test.each<Step>(['receive', 'finish target', 'finish source'])(
    'not after %s',
    async (step) => {
      const walk = await (await newWalk(databases)).to(step);
      for (const { query } of [walk.source, walk.target]) {
        await expect(query('call filestore.cancel_move($1)', [walk.key])).rejects.toMatchObject({
          code: 'FS409',
        });
      }
      expect(await takersOf(walk)).toBe('target');
    },
    20_000,
  );
});

describe('a source that has given a mount away takes it back', () => {
  test.each(['before the move', 'during the move'] as const)(
    'with the receipt of a target that was restored from a backup of the time %s',
    async (backup) => {
      const walk = await (await newWalk(databases)).to('finish source');
      const rows = await rowsOf(walk.source, mountIdOf(walk));
      await walk.target.query(restoreOf(backup, mountIdOf(walk), walk.source.number));
      await expect(walk.source.query('call filestore.cancel_move($1)', [walk.key])).rejects.toMatchObject({
        constraint: 'moves_receipt_check',
      });
      const ticket = await walk.source.query('select filestore.start_move($1, $2) as ticket', [
        walk.key,
        walk.target.number,
      ]);
      await walk.target.query('select filestore.accept_move($1)', [ticket[0]?.ticket]);
      await walk.cancel();
      expect(await takersOf(walk)).toBe('source');
      expect(await rowsOf(walk.source, mountIdOf(walk))).toEqual(rows);
      await walk.to('erase');
      expect(await takersOf(walk)).toBe('target');
      expect(await rowsOf(walk.target, mountIdOf(walk))).toEqual(rows);
    },
    20_000,
  );

  test('but not when it has begun to erase it', async () => {
    const walk = await (await newWalk(databases)).to('finish source');
    await walk.source.query('select filestore.begin_erasing($1, 10)', [walk.key]);
    const receipt = { move: walk.receipts.ticket?.move, canceled: true };
    await expect(
      walk.source.query('call filestore.cancel_move($1, $2)', [walk.key, receipt]),
    ).rejects.toMatchObject({ constraint: 'moves_step_check' });
    expect(await takersOf(walk)).toBe('target');
  }, 20_000);
});

function documentSection(heading: string): string {
  const text = readFileSync(join(PACKAGE_ROOT, 'docs', 'scaling.md'), 'utf8');
  return text.split(/^#+ /m).find((part) => part.startsWith(`${heading}\n`)) ?? '';
}

/** The lines of the table whose first line begins so. */
function tableAfter(section: string, start: string): readonly string[] {
  const lines = section.split('\n');
  const first = lines.findIndex((line) => line.startsWith(start));
  const length = lines.slice(first).findIndex((line) => !line.startsWith('|'));
  return first < 0 ? [] : lines.slice(first, first + length);
}

function tableOf(header: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`.replaceAll(/\| +(?=\|)/g, '| ');
  return [line(header), line(header.map(() => '---')), ...rows.map(line)];
}
