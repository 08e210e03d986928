import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { databaseForEachTest } from './support/databases/test-database.ts';
import { committedMigrations } from './support/packages/committed-files.ts';
import { packedServiceForFile } from './support/packages/packed-service.ts';
import { one } from './support/rows/nodes.ts';

const CLI = join('node_modules', '@apphub', 'filestore', 'dist', 'cli.js');

const database = databaseForEachTest('empty');
const service = packedServiceForFile();

describe('the packed package', () => {
  test('has the built code, the migrations, and what the developer of a service reads', () => {
    const { contents } = service();
    const groups = new Set(contents.map((path) => path.replace(/^(dist|migrations\/committed)\/.*/, '$1')));
    expect([...groups].sort()).toEqual([
      '.gmrc',
      'CHANGELOG.md',
      'README.md',
      'dist',
      'docs/compatibility.md',
      'docs/follow.md',
      'docs/functions.md',
      'docs/import.md',
      'docs/install.md',
      'docs/managed.md',
      'docs/operations.md',
      'docs/query-builders.md',
      'docs/scaling.md',
      'docs/schema.md',
      'docs/service-tests.md',
      'docs/service.md',
      'docs/upkeep.md',
      'migrations/committed',
      'package.json',
      'schema/dictionary.md',
      'schema/filestore.txt',
      'schema/rows.d.ts',
    ]);
    expect(contents).toContain('dist/graphile/worker.mjs');
    expect(contents.filter((path) => path.startsWith('migrations/committed/'))).toEqual(
      committedMigrations().map((file) => `migrations/committed/${file}`),
    );
  });

  // The README is also that of the repository, and names the documents that are only there.
  test('has every file that its other documents link to', () => {
    const { contents, packageFolder } = service();
    const packed = new Set(contents);
    const documents = contents.filter((path) => path.endsWith('.md') && path !== 'README.md');
    const dead = documents.flatMap((path) => {
      // A pattern in a constraint can look like a link, but is in backquotes.
      const text = readFileSync(join(packageFolder, path), 'utf8').replaceAll(/`[^`\n]*`/g, '');
      const links = text.matchAll(/\]\((?!https?:)([^)#\s]+)/g);
      return [...links]
        .map(([, target = '']) => join(dirname(path), target))
        .filter((target) => !packed.has(target))
        .map((target) => `${path} links to ${target}`);
    });
    expect(documents.length).toBeGreaterThan(6);
    expect(dead).toEqual([]);
  });

  test('has no development tools, and imports only packed modules', () => {
    const { contents, packageFolder } = service();
    const packed = new Set(contents);
    const modules = contents.filter((path) => /\.(?:m?js|d\.m?ts)$/.test(path));
    const unpacked = modules.flatMap((path) => {
      const text = readFileSync(join(packageFolder, path), 'utf8');
      // Declarations say which modules they describe.
      const source = /\.d\.m?ts$/.test(path) ? /(?<!\.d)\.(m?)[jt]s$/ : /(?<!\.d)\.(m?)ts$/;
      const imported = [...text.matchAll(/(?:from|import|import\(|new URL\()\s*['"](\.{1,2}\/[^'"]*)['"]/g)];
      return imported
        .map(([, specifier = '']) => join(dirname(path), specifier))
        .map((target) => target.replace(source, '.d.$1ts'))
        .filter((target) => !packed.has(target))
        .map((target) => `${path} imports ${target}`);
    });
    expect(modules.length).toBeGreaterThan(20);
    expect(unpacked).toEqual([]);
    expect(contents.filter((path) => /(?:^|\/)(?:dev|workflow)(?:\/|\.)/.test(path))).toEqual([]);
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
    const printed = await service().run(code, { FILESTORE_DATABASE_URL: database().url });
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
    expect(await service().run(code, {})).toBe('true true SettingsError SETTINGS_INVALID');
  });

  test('migrates from its command line, without tsx', async () => {
    const { stdout } = await service().runNode([CLI, 'migrate'], { DATABASE_URL: database().url });
    expect(stdout).toContain(`applied ${committedMigrations().length} migrations`);
    expect(await one(database(), 'select count(*) from filestore.nodes')).toEqual({ count: '0' });
  });

  test('names the command of an installed package for what is missing in an empty database', async () => {
    const code = `
      import { assertMigrated, verifySchema } from '@apphub/filestore';
      console.log((await verifySchema()).reason);
      await assertMigrated().catch(({ message }) => console.log(message));
    `;
    const printed = await service().run(code, { FILESTORE_DATABASE_URL: database().url });
    const { bin } = JSON.parse(readFileSync(join(service().packageFolder, 'package.json'), 'utf8'));
    expect(Object.keys(bin)).toEqual(['filestore-db']);
    expect(printed.split('\n')).toEqual([
      expect.stringMatching(/ Apply them first: npx --no-install filestore-db migrate\.$/),
      expect.stringMatching(/ Apply them: npx --no-install filestore-db migrate$/),
    ]);
  });

  test('prints the events of a run on its command line', async () => {
    const { stdout } = await service().runNode([CLI, 'migrate', '--events'], {
      DATABASE_URL: database().url,
    });
    const lines = stdout.trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line)).slice(-2)).toMatchObject([
      { type: 'span', name: 'run', error: null },
      { type: 'result', ok: true },
    ]);
  });

  test('has on its command line only the commands that work there', async () => {
    const { stdout } = await service().runNode([CLI, '--help'], {});
    expect([...stdout.matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name)).toEqual([
      'migrate',
      'status',
      'verify',
      'move',
    ]);
    expect(stdout).not.toMatch(/embedded|watch|uncommit|SHADOW/);
    const refused = service().runNode([CLI, 'watch'], {});
    await expect(refused).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('"watch"') });
  });

  test.each(['migrate', 'status', 'verify'])(
    'names the variable to set when %s has no database URL',
    async (command) => {
      const running = service().runNode([CLI, command, '--json'], {});
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
    const report = `
      let threads = 0;
      process.on('worker', () => { threads += 1; });
      process.on('exit', () => {
        const httpClient = process.moduleLoadList.some((name) => name.includes('undici'));
        console.error('REPORT ' + JSON.stringify({ threads, httpClient }));
      });`;
    const observedRun = async () => {
      const { stderr } = await service().runNode(
        ['--import', `data:text/javascript,${encodeURIComponent(report)}`, CLI, 'migrate'],
        { DATABASE_URL: database().url },
      );
      return JSON.parse(/^REPORT (.*)$/m.exec(stderr)?.[1] ?? '');
    };
    expect(await observedRun()).toEqual({ threads: 1, httpClient: false });
    expect(await observedRun()).toEqual({ threads: 0, httpClient: false });
  });
});
