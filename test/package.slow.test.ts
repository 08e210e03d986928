import { execFile } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { committedMigrations } from './support/committed-files.ts';
import { one } from './support/nodes.ts';
import { databaseForEachTest } from './support/test-database.ts';

const run = promisify(execFile);
const database = databaseForEachTest('empty');

/** The folder of a service in which the packed package is installed. */
let service: string;
let contents: readonly string[];

beforeAll(async () => {
  service = mkdtempSync(join(tmpdir(), 'filestore-service-'));
  // Builds a copy, so that the test does not change the checkout.
  const source = join(service, 'source');
  cpSync(PACKAGE_ROOT, source, {
    recursive: true,
    filter: (path) => !/\/(node_modules|dist|\.git|\.postgres)$/.test(path),
  });
  symlinkSync(join(PACKAGE_ROOT, 'node_modules'), join(source, 'node_modules'));
  const { stdout } = await run('npm', ['pack', '--json', '--silent', '--pack-destination', service], {
    cwd: source,
  });
  const report = JSON.parse(
    stdout.slice(stdout.indexOf('[') === -1 ? stdout.indexOf('{') : stdout.indexOf('[')),
  );
  const [packed] = Object.values(report) as [{ filename: string; files: readonly { path: string }[] }];
  contents = packed.files.map(({ path }) => path);

  const modules = join(service, 'node_modules');
  mkdirSync(join(modules, '@apphub'), { recursive: true });
  const tarball = readdirSync(service).find((entry) => entry.endsWith('.tgz')) ?? '';
  await run('tar', ['-xzf', join(service, tarball), '-C', modules]);
  await run('mv', [join(modules, 'package'), join(modules, '@apphub', 'filestore')]);
  // The dependencies that npm would install next to it, and the compiler for the tests.
  for (const name of ['graphile-migrate', 'pg', '@types', 'typescript']) {
    symlinkSync(join(PACKAGE_ROOT, 'node_modules', name), join(modules, name));
  }
  writeFileSync(join(service, 'package.json'), '{ "type": "module" }');
});
afterAll(() => rmSync(service, { recursive: true, force: true }));

/** Runs a module of the service and returns what it printed. */
async function runService(code: string, env: Record<string, string>): Promise<string> {
  writeFileSync(join(service, 'service.js'), code);
  return runCompiled(env);
}

/** Runs the module that was compiled last. */
async function runCompiled(env: Record<string, string>): Promise<string> {
  const { stdout } = await run(process.execPath, ['service.js'], {
    cwd: service,
    env: { PATH: process.env.PATH, ...env },
  });
  return stdout.trim();
}

describe('the packed package', () => {
  test('has only the built code, the documents, the migrations and the settings', () => {
    const groups = new Set(
      contents.map((path) => path.replace(/^(dist|docs|migrations\/committed)\/.*/, '$1')),
    );
    expect([...groups].sort()).toEqual([
      '.gmrc',
      'CHANGELOG.md',
      'CONTRIBUTING.md',
      'README.md',
      'dist',
      'docs',
      'migrations/README.md',
      'migrations/committed',
      'package.json',
      'schema/dictionary.md',
      'schema/filestore.txt',
      'schema/rows.d.ts',
    ]);
    expect(contents).toContain('dist/graphile/worker.mjs');
    expect(contents).toContain('docs/functions.md');
    expect(contents.filter((path) => path.startsWith('migrations/committed/'))).toEqual(
      committedMigrations().map((file) => `migrations/committed/${file}`),
    );
  });

  test('has every file that its documents link to', () => {
    const packed = new Set(contents);
    const folder = join(service, 'node_modules', '@apphub', 'filestore');
    const documents = contents.filter((path) => path.endsWith('.md'));
    const dead = documents.flatMap((path) => {
      const links = readFileSync(join(folder, path), 'utf8').matchAll(/\]\((?!https?:)([^)#\s]+)/g);
      return [...links]
        .map(([, target = '']) => join(dirname(path), target))
        .filter((target) => !packed.has(target))
        .map((target) => `${path} links to ${target}`);
    });
    expect(documents.length).toBeGreaterThan(8);
    expect(dead).toEqual([]);
  });

  test('has no development tools, and imports only packed modules', () => {
    const packed = new Set(contents);
    const folder = join(service, 'node_modules', '@apphub', 'filestore');
    const modules = contents.filter((path) => /\.(?:m?js|d\.m?ts)$/.test(path));
    const unpacked = modules.flatMap((path) => {
      const text = readFileSync(join(folder, path), 'utf8');
      const imported = [...text.matchAll(/(?:from|import|import\(|new URL\()\s*['"](\.{1,2}\/[^'"]*)['"]/g)];
      return imported
        .map(([, specifier = '']) => join(dirname(path), specifier))
        .filter((target) => !packed.has(target) && !packed.has(target.replace(/\.ts$/, '.d.ts')))
        .map((target) => `${path} imports ${target}`);
    });
    expect(modules.length).toBeGreaterThan(20);
    expect(unpacked).toEqual([]);
    expect(contents.filter((path) => /(?:^|\/)(?:dev|embedded|workflow)(?:\/|\.)/.test(path))).toEqual([]);
  });

  test('migrates and serves a database when imported', async () => {
    const code = `
      import { closePool, migrationStatus, POSTGRES_SCHEMA, runMigrations, withTransaction } from '@apphub/filestore';
      const { applied } = await runMigrations();
      const { state } = await migrationStatus();
      const mounts = await withTransaction(async (client) => {
        const { rows } = await client.query(\`select count(*)::integer as count from \${POSTGRES_SCHEMA}.backend_mounts\`);
        return rows[0].count;
      });
      await closePool();
      console.log(JSON.stringify({ applied: applied.length, state, mounts }));
    `;
    const printed = await runService(code, { FILESTORE_DATABASE_URL: database().url });
    expect(JSON.parse(printed)).toEqual({
      applied: committedMigrations().length,
      state: 'current',
      mounts: 0,
    });
  });

  test('throws errors with distinct codes', async () => {
    const code = `
      import { FilestoreError, runMigrations, SettingsError } from '@apphub/filestore';
      try {
        await runMigrations();
      } catch (error) {
        console.log(error instanceof SettingsError, error instanceof FilestoreError, error.name, error.code);
      }
    `;
    expect(await runService(code, {})).toBe('true true SettingsError SETTINGS_INVALID');
  });

  test('migrates from its command line, without tsx', async () => {
    const cli = join('node_modules', '@apphub', 'filestore', 'dist', 'cli.js');
    const { stdout } = await run(process.execPath, [cli, 'migrate'], {
      cwd: service,
      env: { PATH: process.env.PATH, DATABASE_URL: database().url },
    });
    expect(stdout).toContain(`applied ${committedMigrations().length} migrations`);
    expect(await one(database(), 'select count(*) from filestore.nodes')).toEqual({ count: '0' });
  });

  test('prints the events of a run on its command line', async () => {
    const cli = join('node_modules', '@apphub', 'filestore', 'dist', 'cli.js');
    const { stdout } = await run(process.execPath, [cli, 'migrate', '--events'], {
      cwd: service,
      env: { PATH: process.env.PATH, DATABASE_URL: database().url },
    });
    const lines = stdout.trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line)).slice(-2)).toMatchObject([
      { type: 'span', name: 'run', error: null },
      { type: 'result', ok: true },
    ]);
  });

  test('has on its command line only the commands that work there', async () => {
    const cli = join('node_modules', '@apphub', 'filestore', 'dist', 'cli.js');
    const env = { PATH: process.env.PATH };
    const { stdout } = await run(process.execPath, [cli, '--help'], { cwd: service, env });
    expect([...stdout.matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name)).toEqual([
      'migrate',
      'status',
      'verify',
    ]);
    expect(stdout).not.toMatch(/embedded|watch|uncommit|SHADOW/);
    const refused = run(process.execPath, [cli, 'watch'], { cwd: service, env });
    await expect(refused).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('"watch"') });
  });

  test.each(['migrate', 'status', 'verify'])(
    'names the variable to set when %s has no database URL',
    async (command) => {
      const cli = join('node_modules', '@apphub', 'filestore', 'dist', 'cli.js');
      const running = run(process.execPath, [cli, command, '--json'], {
        cwd: service,
        env: { PATH: process.env.PATH },
      });
      const failed = await running.then(
        () => expect.fail('it succeeded'),
        (error) => error,
      );
      expect(failed).toMatchObject({
        code: 2,
        stderr: expect.stringMatching(/^SETTINGS_INVALID: .* Set FILESTORE_DATABASE_URL or DATABASE_URL/),
      });
      expect(JSON.parse(failed.stdout)).toMatchObject({
        ok: false,
        command,
        error: { code: 'SETTINGS_INVALID', setting: 'FILESTORE_DATABASE_URL' },
      });
    },
  );

  test('starts a thread only if there is something to apply, and never loads an HTTP client', async () => {
    const cli = join('node_modules', '@apphub', 'filestore', 'dist', 'cli.js');
    const report = `
      let threads = 0;
      process.on('worker', () => { threads += 1; });
      process.on('exit', () => {
        const httpClient = process.moduleLoadList.some((name) => name.includes('undici'));
        console.error('REPORT ' + JSON.stringify({ threads, httpClient }));
      });`;
    const observedRun = async () => {
      const { stderr } = await run(
        process.execPath,
        ['--import', `data:text/javascript,${encodeURIComponent(report)}`, cli, 'migrate'],
        { cwd: service, env: { PATH: process.env.PATH, DATABASE_URL: database().url } },
      );
      return JSON.parse(/^REPORT (.*)$/m.exec(stderr)?.[1] ?? '');
    };
    expect(await observedRun()).toEqual({ threads: 1, httpClient: false });
    expect(await observedRun()).toEqual({ threads: 0, httpClient: false });
  });

  /** Compiles a module of the service with the package's declarations, writes service.js, and returns the output. */
  async function compile(code: string): Promise<string> {
    writeFileSync(join(service, 'service.ts'), code);
    const flags =
      '--strict --skipLibCheck false --module nodenext --target es2022 --types node --exactOptionalPropertyTypes';
    const { stdout } = await run(
      process.execPath,
      [join(PACKAGE_ROOT, 'node_modules', 'typescript', 'bin', 'tsc'), ...flags.split(' '), 'service.ts'],
      { cwd: service },
    ).catch((error) => ({ stdout: `${error.stdout}${error.stderr}` }));
    return stdout;
  }

  test('has types that a strict service compiles against', async () => {
    const errors = await compile(
      `import { getPool, type MigrationReport, MigrationFailedError, runMigrations } from '@apphub/filestore';
       export const report: Promise<MigrationReport> = runMigrations({ onEvent: (event) => console.log(event.type) });
       export const statement = (error: MigrationFailedError): number | null => error.place?.statement ?? null;
       export const max: number | undefined = getPool().options.max;
       // @ts-expect-error the report is read-only
       report.then((value) => { value.alreadyApplied = 1; });`,
    );
    expect(errors).toBe('');
  });

  test('has a type guard for reasons of refusals', async () => {
    const errors = await compile(
      `import { isRefusal, REFUSAL_REASONS, type RefusalReason } from '@apphub/filestore/sql';
       export const first: RefusalReason | undefined = REFUSAL_REASONS[0];
       export const reason = (error: unknown): 'nodes_stale' | undefined =>
         isRefusal(error, 'nodes_stale') ? error.constraint : undefined;
       // @ts-expect-error there is no such reason
       isRefusal(null, 'nodes_unknown');`,
    );
    expect(errors).toBe('');
  });

  test('has types of its rows for a service that queries', async () => {
    const errors = await compile(
      `import { withConnection } from '@apphub/filestore';
       import type { ActiveNodeRow, NodeInsert, NodeRow, NodeUpdate } from '@apphub/filestore/rows';
       export const find = (path: string): Promise<readonly ActiveNodeRow[]> => withConnection(async (client) =>
         (await client.query<ActiveNodeRow>('select * from filestore.view_filestore_active_nodes where path = $1', [path])).rows);
       export const insert: NodeInsert = { backend_mount_id: 1n, parent_id: '2', name: 'a', kind: 'file' };
       export const update: NodeUpdate = { size_bytes: 7n, checksum: null };
       export const size = (row: NodeRow): bigint => BigInt(row.size_bytes);
       export const days = (row: NodeRow): number => row.deleted_at?.getUTCDate() ?? 0;
       // @ts-expect-error a kind is one of two
       export const link: NodeInsert = { backend_mount_id: 1, name: 'a', kind: 'link' };
       // @ts-expect-error the database counts ids
       export const numbered: NodeInsert = { id: '1', backend_mount_id: 1, name: 'a', kind: 'file' };
       // @ts-expect-error a file need not have a checksum
       export const checksum = (row: NodeRow): string => row.checksum;`,
    );
    expect(errors).toBe('');
  });

  test('has typed calls that take a pool or a client, and refuse wrong arguments', async () => {
    const errors = await compile(
      `import { getPool, withTransaction } from '@apphub/filestore';
       import type { JournalEntryRow, NodeRow } from '@apphub/filestore/rows';
       import { beginCommand, createNode, foldRollups, listDirectory, nodeByPath, nodeLocation, type SqlClient } from '@apphub/filestore/sql';
       import pg from 'pg';
       export const clients: readonly SqlClient[] = [new pg.Client(), new pg.Pool(), getPool()];
       const client = new pg.Client();
       const parentId = 1n;
       export const node: NodeRow = await createNode(client, { parentId, name: 'a', kind: 'file', checksum: undefined });
       export const inside: NodeRow = await withTransaction((own) => createNode(own, { parentId, name: 'a' }));
       export const found: NodeRow | undefined = await nodeByPath(client, { mountKey: 'media', path: 'a' });
       export const nodes: readonly NodeRow[] = await listDirectory(client, { directoryId: node.id });
       export const begun: { is_new: boolean; entry: JournalEntryRow } = await beginCommand(client, { command: 'a', parameters: { a: [1] } });
       export const folded: number = await foldRollups(client);
       // @ts-expect-error an argument of that name does not exist
       await createNode(client, { parentId, name: 'a', sizeByte: 1 });
       // @ts-expect-error an argument is missing
       await createNode(client, { name: 'a' });
       // @ts-expect-error a name is a string
       await createNode(client, { parentId, name: 7 });
       // @ts-expect-error a node has a parent
       await createNode(client, { parentId: null, name: 'a' });
       // @ts-expect-error there may be no node at a path
       export const path: string = (await nodeByPath(client, { mountKey: 'media', path: 'a' })).path;
       // @ts-expect-error there may be no such node
       export const location: string = await nodeLocation(client, { nodeId: 1 });
       // @ts-expect-error a string runs no statement
       await foldRollups('postgres://localhost');`,
    );
    expect(errors).toBe('');
  });

  test('has the typed calls that docs/functions.md shows, which run unchanged', async () => {
    const text = readFileSync(join(PACKAGE_ROOT, 'docs', 'functions.md'), 'utf8');
    const [example = ''] = [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code);
    const env = { FILESTORE_DATABASE_URL: database().url };
    await runService("import { runMigrations } from '@apphub/filestore'; await runMigrations();", env);
    await database().query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('media', 'local', '/srv/media')",
    );
    const end = "import { closePool } from '@apphub/filestore'; await closePool();";
    expect(await compile(`${example}${end}`)).toBe('');
    expect(await runCompiled(env)).toBe('page 1.png 2048');
  });

  test('has everything that the TypeScript of docs/service.md uses, which runs unchanged', async () => {
    const text = readFileSync(join(PACKAGE_ROOT, 'docs', 'service.md'), 'utf8');
    const [prune = '', statuses = ''] = [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(
      ([, code]) => code,
    );
    const { url } = database();
    await runService("import { runMigrations } from '@apphub/filestore'; await runMigrations();", {
      FILESTORE_DATABASE_URL: url,
    });
    expect(await compile(prune)).toBe('');
    expect(await runCompiled({ OPERATOR_DATABASE_URL: url })).toBe('');

    // The rows of the table, without those that describe a case in words.
    const rows = [...text.matchAll(/^\| (`\w+`[^|]*) \| (\d{3}) \|$/gm)];
    const expected = rows.flatMap(([, names = '', status]) =>
      [...names.matchAll(/`(\w+)`/g)].map(([, name = '']) => [name, Number(status)] as const),
    );
    expect(expected.length).toBeGreaterThan(15);
    const samples = JSON.stringify(expected.map(([name]) => name));
    expect(
      await compile(`${statuses}
        const errorOf = (name: string) => name.includes('_')
          ? Object.assign(new Error(), { code: 'FS409', schema: 'filestore', constraint: name })
          : Object.assign(new Error(), { code: name.padEnd(5, '0'), schema: 'filestore', constraint: 'nodes_name_check' });
        console.log(JSON.stringify((${samples} as string[]).map((name) => [name, statusOf(errorOf(name))])));`),
    ).toBe('');
    expect(JSON.parse(await runCompiled({}))).toEqual(expected);
  });
});
