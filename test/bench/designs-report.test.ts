import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type DesignFacts, factsOf } from '../../bench/designs/design.ts';
import { findBehind, judgeTargets } from '../../bench/designs/design-targets.ts';
import {
  MeasurementStore,
  type Operation,
  ofRounds,
  type Report,
} from '../../bench/designs/measurement-store.ts';
import { disagreements, ranksOf } from '../../bench/designs/ranking.ts';
import { DESIGNS, readAlternatives } from '../../bench/designs/read-designs.ts';
import { writeReport } from '../../bench/designs/report-files.ts';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fs-report-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

const RESOLVE: Operation = { key: 'resolve', group: 'Lookups', title: 'path → node', unit: 'ms' };
const CREATE: Operation = { key: 'create1spread', group: 'Writing files', title: 'create', unit: '/s' };

/** A report with one figure of each design. */
function reportOf(
  operation: Operation,
  figures: Readonly<Record<string, number>>,
  designs: readonly DesignFacts[] = DESIGNS.map(factsOf),
): MeasurementStore {
  const store = new MeasurementStore(folder, {
    command: 'npm run bench -- --only designs',
    startedAt: '2026-01-01T00:00:00.000Z',
    rounds: 1,
    seconds: 1,
    environment: {
      postgres: '18.4',
      fsync: 'on',
      settings: 'synchronous_commit on',
      cores: 2,
      loadBefore: 0,
      load: 'pgbench',
      collation: 'en-US of ICU',
    },
    designs: designs.filter(({ key }) => key in figures),
  });
  for (const [design, value] of Object.entries(figures)) {
    store.add(operation, ofRounds(design, [value, value]));
  }
  return store;
}

test('a report names its command, shows every figure, and draws a plot', () => {
  const store = reportOf(RESOLVE, { this: 0.1, a: 0.25, b: 0.05 });
  store.addCalibration({ when: 'before', emptyStatementMs: 0.02, keyLookupMs: 0.03, fsyncMs: 1.5 });
  store.addRace({
    race: 'creates below a directory that moves',
    design: 'b',
    writes: 100,
    refused: 0,
    deadlocks: 0,
    orphans: 0,
    unreachable: 0,
    wrong: 7,
  });
  const files = writeReport(folder, store.report, undefined);
  const text = readFileSync(join(folder, 'report.md'), 'utf8');
  expect(text).toContain('`npm run bench -- --only designs`');
  expect(text).toContain('| path → node | 0.1 ms | 0.25 ms | **0.05 ms** |');
  expect(text).toMatch(/creates below a directory that moves \| \(b\) full path .* \*\*7\*\* \|/);
  expect(files).toContain(join(folder, 'lookups.svg'));
  const plot = readFileSync(join(folder, 'lookups.svg'), 'utf8');
  expect(plot).toMatch(/^<svg .*path → node.*<\/svg>\n$/s);
  expect(plot).not.toMatch(/NaN|undefined/);
  for (const [, name = ''] of text.matchAll(/\]\(([^)]+\.svg)\)/g))
    expect(files).toContain(join(folder, name));
});

test('a published figure is shown with its source, beside the nearest operation here', () => {
  const creates: Operation = { ...CREATE, key: 'create12spread', title: 'create, 12 connections' };
  const { report } = reportOf(creates, { this: 1_234 });
  writeReport(folder, report, undefined);
  const text = readFileSync(join(folder, 'report.md'), 'utf8');
  expect(text).toMatch(
    /\| JuiceFS on PostgreSQL 15\.3 \| .* \| 4,727\/s \| create, 12 connections \| 1,234\/s \| \[.+\]\(https:.+\) \|/,
  );
});

/** A folder of alternatives with one file. */
function alternativesWith(file: string, text: string): URL {
  const alternatives = join(folder, 'alternatives');
  mkdirSync(alternatives);
  writeFileSync(join(alternatives, file), text);
  return pathToFileURL(`${alternatives}/`);
}

test('a design that is added as one file gets its column, its colour and its description in the report', async () => {
  const facts: DesignFacts = {
    key: 'z',
    title: '(z) sixth design',
    color: '#123456',
    specialities: ['resolve'],
    description: { is: 'Each row has a sixth thing.', lacks: 'A seventh thing.' },
  };
  const text = `export const design = ${JSON.stringify(facts)};`;
  const added = await readAlternatives(alternativesWith('sixth-design.mjs', text));
  const { report } = reportOf(RESOLVE, { this: 0.1, z: 0.05 }, [...DESIGNS, ...added].map(factsOf));
  writeReport(folder, report, undefined);
  const written = readFileSync(join(folder, 'report.md'), 'utf8');
  expect(written).toContain('|  | this schema | (z) sixth design |');
  expect(written).toContain('| path → node | (z) 2.00* |');
  expect(written).toContain('| (z) sixth design | Each row has a sixth thing. | A seventh thing. |');
  expect(readFileSync(join(folder, 'lookups.svg'), 'utf8')).toContain('#123456');
});

test('a file of alternatives that exports no design is refused', async () => {
  const alternatives = alternativesWith('tables.mjs', 'export const table = 1;');
  await expect(readAlternatives(alternatives)).rejects.toThrow('tables.mjs does not export "design"');
});

test('no two designs share a key, title, colour or schema', () => {
  for (const property of ['key', 'title', 'color', 'schema'] as const) {
    expect(new Set(DESIGNS.map((design) => design[property])).size).toBe(DESIGNS.length);
  }
});

test('a report says which designs were not loaded at the same time', () => {
  const store = reportOf(RESOLVE, { this: 0.1, b: 0.05 });
  const calibrate = (when: string) =>
    store.addCalibration({ when, emptyStatementMs: 0.02, keyLookupMs: 0.03, fsyncMs: 1.5 });
  const written = () => {
    writeReport(folder, store.report, undefined);
    return readFileSync(join(folder, 'report.md'), 'utf8');
  };
  calibrate('before this, twin');
  calibrate('after this, twin');
  expect(written()).not.toContain('not all loaded at the same time');
  calibrate('before b');
  expect(written()).toMatch(/not all loaded at the same time.* first \(this, twin\), then \(b\)\./);
});

test('what was measured is in the file before the run ends', () => {
  reportOf(RESOLVE, { this: 0.1 });
  const kept: Report = JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8'));
  expect(kept.finished).toBe(false);
  expect(kept.measurements).toMatchObject([{ operation: 'resolve', design: 'this', p50: 0.1 }]);
});

test('designs within a tenth of the best have the same rank, and the twin has none', () => {
  const { report } = reportOf(RESOLVE, { this: 1.05, twin: 0.1, a: 2, b: 1 });
  expect(Object.fromEntries(ranksOf(report, RESOLVE))).toEqual({ b: 1, this: 1, a: 3 });
});

test('of a rate, more is better', () => {
  const { report } = reportOf(CREATE, { this: 1_000, a: 2_000 });
  expect(Object.fromEntries(ranksOf(report, CREATE))).toEqual({ a: 1, this: 2 });
});

test('two runs disagree where the order of two designs is opposite, not where they come close', () => {
  const { report: first } = reportOf(RESOLVE, { this: 1, a: 1.2, b: 2 });
  const { report: second } = reportOf(RESOLVE, { this: 1.05, a: 1, b: 0.5 });
  const kinds = disagreements(first, second).map(({ one, other, kind }) => `${one} ${other} ${kind}`);
  expect(kinds).toEqual(['this a shifted', 'this b opposite', 'a b opposite']);
});

test('a design that is ahead is named, with what its speciality allows', () => {
  const { report } = reportOf(RESOLVE, { this: 1.4, a: 1, b: 1 });
  const found = findBehind(report).map(({ design, isSpeciality, isAllowed }) => ({
    design,
    isSpeciality,
    isAllowed,
  }));
  expect(found).toEqual([
    { design: 'a', isSpeciality: false, isAllowed: false },
    { design: 'b', isSpeciality: true, isAllowed: true },
  ]);
});

test('a target is judged by the ratio of the rounds, and left out where nothing was measured', () => {
  const { report } = reportOf(CREATE, { this: 600, twin: 1_000 });
  expect(judgeTargets(report)).toMatchObject([{ ratio: 0.6, reached: false }]);
});

test('rounds that only one of two designs has do not count for a ratio', () => {
  const store = reportOf(CREATE, {});
  store.add(CREATE, ofRounds('this', [500, 750, 5_000]));
  store.add(CREATE, ofRounds('twin', [1_000, 1_000]));
  expect(judgeTargets(store.report)).toMatchObject([{ ratio: 0.625, spread: [0.5, 0.75] }]);
});
