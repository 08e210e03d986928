/**
 * Changes one thing at a time in the schema, and runs the tests that touch it until one fails.
 *
 *   node --import tsx test/mutants/main.ts -- --only move_node,delete_node
 *
 * Results are kept, so that a run that was ended goes on. TEST_DATABASE_URL and so on choose the server, as for tests.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { mulberry32 } from '../support/mulberry32.ts';
import { openChooser } from './choose-files.ts';
import { hash, listMutants, type Mutant } from './mutants.ts';
import { explanationOf, keyOf, openStore, type Result, renderReport, type Store } from './results.ts';
import { openSession, type RecordedFile, type Session } from './session.ts';

const USAGE = `npm run mutate -- [--only move_node,nodes] [--kind lock] [--sample 100 --seed 1] [--report]
  --only     objects: functions, triggers, views, tables and domains
  --kind     only kinds whose name contains this
  --sample   so many of them, chosen at random; --seed repeats a choice
  --part     1/2 and 2/2 are two halves, for two runs at once
  --limit    seconds of tests for one mutant (default 60, by their duration with the unchanged schema)
  --tests    only these test files
  --again    tests only the survivors again, such as with --tests
  --slow     with the files of the slow lane too
  --results  a folder for the results (default .mutants)
  --report   prints what is known, and tests nothing`;

interface Options {
  readonly only?: string | undefined;
  readonly kind?: string | undefined;
  readonly sample?: string | undefined;
  readonly tests?: string | undefined;
  readonly seed: string;
  readonly part: string;
  readonly limit: string;
  readonly again: boolean;
  readonly slow: boolean;
  readonly results: string;
  readonly report: boolean;
}

async function main(options: Options): Promise<void> {
  const store = openStore(options.results);
  const session = await openSession();
  let isStopping = false;
  process.once('SIGINT', () => {
    isStopping = true;
  });
  try {
    const chosen = choose(await session.withTemplate(listMutants), options);
    if (!options.report) {
      await recordFiles(session, store, options);
      const open = chosen.filter((mutant) => isOpen(mutant, store, options.again));
      console.log(`${chosen.length} mutants, ${open.length} of them to test`);
      await testMutants(session, store, open, options, () => isStopping);
    }
    console.log(renderReport(chosen, store));
  } finally {
    await session.close();
  }
}

/** In a random order, so that a run that was ended is a sample too. */
function choose(
  mutants: readonly Mutant[],
  { only, kind = '', sample, seed, part }: Options,
): readonly Mutant[] {
  const objects = only?.split(',');
  const random = mulberry32(Number(seed));
  const [number = 1, parts = 1] = part.split('/').map(Number);
  return mutants
    .map((mutant) => ({ mutant, place: random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ mutant }) => mutant)
    .filter((mutant) => objects?.includes(mutant.object) !== false && mutant.kind.includes(kind))
    .slice(0, sample === undefined ? undefined : Number(sample))
    .filter((_, at) => at % parts === number - 1);
}

function isOpen(mutant: Mutant, { results }: Store, again: boolean): boolean {
  if (explanationOf(mutant) !== undefined) return false;
  const known = results.get(keyOf(mutant));
  return again ? known?.outcome === 'survived' : known === undefined;
}

async function listFiles(session: Session, { tests, slow }: Options): Promise<readonly string[]> {
  if (tests !== undefined) return tests.split(',');
  return [...(await session.listFiles('fast')), ...(slow ? await session.listFiles('slow') : [])];
}

async function recordFiles(session: Session, store: Store, options: Options): Promise<void> {
  const files = (await listFiles(session, options)).filter(
    (file) => store.files.get(file)?.failed !== undefined || !store.files.has(file),
  );
  for (const file of files) {
    const recorded = await session.record(file);
    store.saveFile(file, recorded);
    console.log(
      `recorded ${file}: ${recorded.seconds} s, ${recorded.functions.length} functions ${recorded.failed ?? ''}`,
    );
  }
}

async function testMutants(
  session: Session,
  store: Store,
  mutants: readonly Mutant[],
  options: Options,
  isStopping: () => boolean,
): Promise<void> {
  const files = await listFiles(session, options);
  const usable = [...store.files].filter(
    ([file, { failed }]) => failed === undefined && files.includes(file),
  );
  const chooser = openChooser(new Map(usable));
  for (const { id, by } of store.results.values()) {
    const [object = '', kind = ''] = id.split('/');
    if (by !== undefined) chooser.learn(object, kind, [by.file], by.file);
  }
  const sound = new Set<string>();
  const startedAt = performance.now();
  for (const [at, mutant] of mutants.entries()) {
    if (isStopping()) return;
    const touching = chooser.choose(mutant);
    const chosen = withinLimit(touching, store.files, Number(options.limit));
    const result = await testMutant(session, mutant, chosen, touching.length);
    if (result.by !== undefined && !sound.has(result.by.file)) {
      await requireSound(session, result.by.file);
      sound.add(result.by.file);
    }
    store.save(result);
    chooser.learn(mutant.object, mutant.kind, chosen, result.by?.file);
    const by = result.by === undefined ? `${result.ran} of ${touching.length} files` : result.by.file;
    console.log(
      `${at + 1} ${result.outcome} ${mutant.id} ${result.seconds.toFixed(1)} s (${by}); ${Math.round((performance.now() - startedAt) / 1000 / (at + 1))} s each`,
    );
    if (result.outcome === 'survived') console.log(`    ${mutant.where}: ${mutant.change}`);
  }
}

/** A file that was changed since it was recorded may fail without a mutant, and would then catch each of them. */
async function requireSound(session: Session, file: string): Promise<void> {
  await session.change({ sql: 'select', undo: 'select' });
  const failure = await session.run([file]);
  if (failure === undefined) return;
  throw new Error(`${file} fails with the unchanged schema too: ${failure.test}: ${failure.message}`);
}

/** The first file, and those after it for which there is time. A long one is passed over: it would keep out all that follow. */
function withinLimit(files: readonly string[], recorded: ReadonlyMap<string, RecordedFile>, limit: number) {
  let left = limit;
  return files.filter((file, at) => {
    const seconds = recorded.get(file)?.seconds ?? 0;
    if (at > 0 && seconds > left) return false;
    left -= seconds;
    return true;
  });
}

async function testMutant(
  session: Session,
  mutant: Mutant,
  files: readonly string[],
  touching: number,
): Promise<Result> {
  const startedAt = performance.now();
  const result = (outcome: Result['outcome'], rest: Partial<Result> = {}): Result => ({
    id: mutant.id,
    hash: hash(mutant.sql),
    outcome,
    seconds: Math.round((performance.now() - startedAt) / 100) / 10,
    ran: files.length,
    touching,
    ...rest,
  });
  try {
    await session.change(mutant);
  } catch {
    return result('refused');
  }
  const by = files.length === 0 ? undefined : await session.run(files);
  return by === undefined ? result('survived') : result('caught', { by });
}

try {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      kind: { type: 'string' },
      sample: { type: 'string' },
      tests: { type: 'string' },
      seed: { type: 'string', default: '1' },
      part: { type: 'string', default: '1/1' },
      limit: { type: 'string', default: '60' },
      again: { type: 'boolean', default: false },
      slow: { type: 'boolean', default: false },
      results: { type: 'string', default: join(PACKAGE_ROOT, '.mutants') },
      report: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
    // npm passes "--" on.
    args: process.argv.slice(2).filter((argument) => argument !== '--'),
  });
  if (values.help) console.log(USAGE);
  else await main(values);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
