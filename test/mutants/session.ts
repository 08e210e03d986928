import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { inspect } from 'node:util';
import pg from 'pg';
import { BaseSequencer, createVitest, type Reporter, type TestSpecification } from 'vitest/node';
import { databaseUrl } from '../../harness/connection.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { KeptThread } from './kept-worker.ts';
import { isRandom, runSequences } from './random-sequences.ts';

/** These read the text of functions, or compare it with what is committed. Only behaviour counts here. */
const EXCLUDED_FILES = ['test/sql/reasons.test.ts'];
const EXCLUDED_TESTS = [
  'only the few functions that read columns from the catalog build SQL from text',
  'a mount by its id is taken wherever its key is',
  'takes writes again when the move is taken back',
  'a server that is prepared has the same schema',
  'is restored with its content, and its schema matches the migrations',
];

/** The first test that failed. */
export interface Failure {
  readonly file: string;
  readonly test: string;
  readonly message: string;
}

/** What a test file does with the unchanged schema. */
export interface RecordedFile {
  readonly seconds: number;
  readonly functions: readonly string[];
  /** Why it failed: it cannot catch anything then. */
  readonly failed?: string;
}

/** A server with the migrated template, and the test files that run on it. */
export interface Session {
  /** Opens the migrated template. */
  withTemplate<T>(work: (client: pg.Client) => Promise<T>): Promise<T>;
  /**
   * Changes the template. The next change first runs `undo` of this one, or rebuilds the template when there is none.
   * Throws the server's error if it refuses the change.
   */
  change(change: { readonly sql: string; readonly undo?: string | undefined }): Promise<void>;
  /** Runs files in this order until a test fails. */
  run(files: readonly string[]): Promise<Failure | undefined>;
  /** Runs one file on the unchanged schema, and records its duration and which functions it calls. */
  record(file: string): Promise<RecordedFile>;
  /** The test files of the schema: of the fast lane, or of the slow one. */
  listFiles(lane: 'fast' | 'slow'): Promise<readonly string[]>;
  close(): Promise<void>;
}

class GivenOrder extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return files;
  }
}

export async function openSession(): Promise<Session> {
  const folder = mkdtempSync(join(tmpdir(), 'filestore-mutants-'));
  const calls = join(folder, 'calls');
  const mutant = join(folder, 'mutant.sql');
  process.env.FILESTORE_RECORDED_CALLS = calls;
  process.env.FILESTORE_MUTANT = mutant;
  writeFileSync(mutant, '');
  let undoLast: string | undefined;
  let failure: Failure | undefined;
  let onFailure: () => void = () => undefined;
  const fail = (found: Failure) => {
    failure ??= found;
    onFailure();
  };
  const nameOf = (moduleId: string) => relative(PACKAGE_ROOT, moduleId);
  const reporter: Reporter = {
    onTestCaseResult(test) {
      const result = test.result();
      if (result.state !== 'failed') return;
      const message = result.errors[0]?.message.split('\n')[0] ?? '';
      fail({ file: nameOf(test.module.moduleId), test: test.fullName, message });
    },
    onTestModuleEnd(module) {
      if (module.state() !== 'failed') return;
      const errors = [module, ...module.children.allSuites()].flatMap((part) => part.errors());
      fail({ file: nameOf(module.moduleId), test: 'before all', message: errors[0]?.message ?? '' });
    },
  };
  const worker = new KeptThread();
  const vitest = await createVitest('test', {
    root: PACKAGE_ROOT,
    watch: false,
    isolate: false,
    pool: worker.pool,
    maxWorkers: 1,
    bail: 1,
    silent: true,
    testTimeout: 20_000,
    hookTimeout: 60_000,
    teardownTimeout: 5_000,
    reporters: [reporter],
    sequence: { sequencer: GivenOrder },
    setupFiles: ['test/mutants/record-calls.ts'],
    testNamePattern: `^(?!.*(${EXCLUDED_TESTS.join('|')}))`,
  });
  const all = await vitest.globTestSpecifications();
  const byFile = new Map(all.map((specification) => [nameOf(specification.moduleId), specification]));
  const specificationsOf = (files: readonly string[]) =>
    files.map((file) => {
      const specification = byFile.get(file);
      if (specification === undefined) throw new Error(`There is no test file ${file}`);
      return specification;
    });
  // Starts the server. The file needs none.
  await vitest.runTestSpecifications(specificationsOf(['test/sql-text.test.ts']));
  const { template, adminUrl, superuserUrl } = vitest.getRootProject().getProvidedContext();
  const owner = pg.escapeIdentifier(decodeURIComponent(new URL(adminUrl).username));
  const unchanged = `${template}_unchanged`;
  const superuser = new pg.Client(superuserUrl);
  superuser.on('error', () => undefined);
  await superuser.connect();
  await superuser.query("alter system set track_functions = 'all'");
  await superuser.query('select pg_reload_conf()');
  await superuser.query(`create database ${unchanged} owner ${owner} template ${template}`);

  /** What failed tests leave. A statement that does not end would keep them from ending too. */
  async function removeLeftovers(): Promise<void> {
    const { rows: databases } = await superuser.query(
      "select datname from pg_database where datname ~ ('^' || $1 || '_[0-9]')",
      [template],
    );
    for (const { datname } of databases)
      await superuser.query(`drop database if exists "${datname}" with (force)`).catch(() => undefined);
    const { rows: roles } = await superuser.query(
      "select rolname from pg_roles where rolname ~ ('^' || $1 || '_[0-9]')",
      [template],
    );
    for (const { rolname } of roles)
      await superuser
        .query(`drop owned by "${rolname}" cascade; drop role "${rolname}"`)
        .catch(() => undefined);
  }

  async function endStatements(): Promise<void> {
    await superuser.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where starts_with(datname, $1) and state <> 'idle' and query_start < clock_timestamp() - interval '5 s'`,
      [template],
    );
  }

  const noteCalls = (database: string) =>
    withClient(databaseUrl(superuserUrl, database), async (client) => {
      const { rows } = await client.query<{ name: string }>(
        "select distinct funcname as name from pg_stat_user_functions where schemaname = 'filestore'",
      );
      appendFileSync(calls, rows.map(({ name }) => `${name}\n`).join(''));
    });

  async function runAll(
    files: readonly string[],
    afterEach?: typeof noteCalls,
  ): Promise<Failure | undefined> {
    const at = files.findIndex(isRandom);
    const file = files[at];
    if (file === undefined) return files.length === 0 ? undefined : runFiles(files);
    const before = at === 0 ? undefined : await runFiles(files.slice(0, at));
    const server = { superuser, adminUrl, template, owner, ...(afterEach && { afterEach }) };
    return before ?? (await runSequences(file, server)) ?? (await runAll(files.slice(at + 1)));
  }

  /** The thread may still be at work on a test that did not end. */
  const isHanging = () => failure?.message.includes('timed out') === true;

  async function runFiles(files: readonly string[]): Promise<Failure | undefined> {
    failure = undefined;
    onFailure = () => void endStatements().catch(() => undefined);
    const { unhandledErrors } = await vitest.runTestSpecifications(specificationsOf(files));
    if (unhandledErrors.length > 0)
      fail({ file: files.join(' '), test: 'outside of tests', message: inspect(unhandledErrors[0]) });
    if (isHanging() || unhandledErrors.length > 0) await worker.discard();
    await removeLeftovers();
    return failure;
  }

  return {
    withTemplate: (work) => withClient(databaseUrl(adminUrl, template), work),
    async change({ sql, undo }) {
      writeFileSync(mutant, sql);
      const open = <T>(work: (client: pg.Client) => Promise<T>) =>
        withClient(databaseUrl(adminUrl, template), work);
      if (
        undoLast === undefined ||
        !(await open((client) => client.query(undoLast ?? '')).catch(() => false))
      ) {
        await superuser.query(`drop database if exists ${template} with (force)`);
        await superuser.query(
          `create database ${template} owner ${owner} template ${unchanged} strategy file_copy`,
        );
      }
      // If the change is refused, the template stays as it is.
      undoLast = 'select';
      await open((client) => client.query(`begin; ${sql}; commit`));
      undoLast = undo;
    },
    run: (files) => runAll(files),
    async record(file) {
      writeFileSync(calls, '');
      const startedAt = performance.now();
      const failed = await runAll([file], noteCalls);
      const names = readFileSync(calls, 'utf8').split('\n').filter(Boolean);
      rmSync(calls);
      return {
        seconds: Math.round((performance.now() - startedAt) / 100) / 10,
        functions: [...new Set(names)].sort(),
        ...(failed === undefined ? {} : { failed: `${failed.test}: ${failed.message}` }),
      };
    },
    async listFiles(lane) {
      const files = [...byFile.keys()].filter(
        (file) =>
          /^test\/((schema|sql|model|disk)\/|cli\/verify-rights)/.test(file) &&
          !EXCLUDED_FILES.includes(file),
      );
      const isFast = (file: string) =>
        isRandom(file) || file.includes('/random-') || !file.endsWith('.slow.test.ts');
      return files.filter((file) => isFast(file) === (lane === 'fast')).sort();
    },
    async close() {
      await superuser.query(`drop database if exists ${unchanged} with (force)`);
      await superuser.query('alter system reset track_functions');
      await superuser.query('select pg_reload_conf()');
      await superuser.end();
      await worker.discard();
      await vitest.close();
      rmSync(folder, { recursive: true, force: true });
      process.exitCode = 0;
    },
  };
}
