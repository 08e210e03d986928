import { expect, test } from 'vitest';
import { measureMove } from './measured-move.ts';

const CLEAN = { faults: [] };

test('a mount moves to another server while eight writers are at work, and nothing is lost or doubled', async () => {
  const result = await measureMove({ nodes: 5000, writers: 8, kills: false });
  expect(result).toMatchObject(CLEAN);
  expect(result.writtenToTarget).toBeGreaterThan(0);
  expect(result.stallsMs).toHaveLength(8);
}, 300_000);

test('a mount moves although the target is killed during the copy, and workers and walsenders end', async () => {
  expect(await measureMove({ nodes: 5000, writers: 4, kills: true })).toMatchObject(CLEAN);
}, 300_000);

test('a mount moves by the steps of docs/scaling.md, after a first attempt that was taken back', async () => {
  const options = { nodes: 1000, writers: 4, kills: false, by: 'hand', takeBackFirst: true } as const;
  expect(await measureMove(options)).toMatchObject(CLEAN);
}, 300_000);

test('a move that was taken back leaves the source unharmed, and can begin again', async () => {
  expect(await measureMove({ nodes: 1000, writers: 4, kills: false, takeBackFirst: true })).toMatchObject(
    CLEAN,
  );
}, 300_000);
