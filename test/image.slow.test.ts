import { execFile, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startProxy } from '../harness/proxy.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { serverAccount } from '../src/testing/embedded/account.ts';
import { databaseForEachTest } from './support/databases/test-database.ts';
import { committedMigrations } from './support/packages/committed-files.ts';
import {
  type BuiltFolder,
  buildFolder,
  contextEntries,
  readDockerfile,
} from './support/packages/dockerfile.ts';
import { listedPackages, lockedPackages } from './support/packages/packages.ts';

const run = promisify(execFile);
const database = databaseForEachTest('empty');
const manifest = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
/** What `npm pack` packs, by its first folder. */
const packed: readonly string[] = [...manifest.files, 'README.md', 'package.json'].map(
  (path) => path.split('/')[0],
);

test('a build gets the files of the package, and no other file of the checkout', () => {
  const compiled = ['src', 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'];
  const needed = new Set([...packed, ...compiled].filter((path) => path !== 'dist'));
  expect([...contextEntries()].sort()).toEqual([...needed].sort());
});

describe('the steps of the Dockerfile', () => {
  let parent: string;
  let image: BuiltFolder;
  beforeAll(async () => {
    parent = mkdtempSync(join(tmpdir(), 'filestore-image-'));
    chmodSync(parent, 0o755);
    image = await buildFolder(parent);
  }, 300_000);
  afterAll(() => rmSync(parent, { recursive: true, force: true }));

  /** Runs a command of the image, as a user who may not write to it. */
  const start = (args: readonly string[]) => {
    const [program = '', ...first] = image.entrypoint;
    const path = [join(image.root, 'usr', 'local', 'bin'), process.env.PATH].join(delimiter);
    return run(program, [...first, ...args], {
      ...serverAccount(),
      cwd: image.cwd,
      env: { ...image.env, PATH: path, FILESTORE_MIGRATION_DATABASE_URL: database().url },
    });
  };

  test('leave a command that migrates by default, and has the other commands', async () => {
    const pending = await start(['status']).catch((error) => error);
    expect(pending.code, pending.stdout + pending.stderr).toBe(3);
    const { stdout } = await start(image.command);
    expect(stdout).toContain(`applied ${committedMigrations().length} migrations`);
    expect((await start(['status'])).stdout).toContain('0 pending');
    expect((await start(['verify'])).stdout).toContain('the schema matches its migrations');
  });

  test('leave the packed package and what npm installs for it', () => {
    const entries = new Set([...packed, 'package-lock.json', 'node_modules']);
    expect(readdirSync(join(image.root, 'filestore')).sort()).toEqual([...entries].sort());
    expect(readdirSync(join(image.root, 'filestore', 'migrations'))).toEqual(['committed']);
  });

  test('leave the packages that the SBOM lists, without those of other platforms', () => {
    const listed = listedPackages();
    const installed = lockedPackages(join(image.root, 'filestore', 'node_modules', '.package-lock.json'));
    expect([...installed].filter((name) => !listed.has(name))).toEqual([]);
    const optional = lockedPackages(join(PACKAGE_ROOT, 'package-lock.json'), (entry) => !!entry.optional);
    expect([...listed].filter((name) => !installed.has(name) && !optional.has(name))).toEqual([]);
  });
});

/** Why the image cannot be built here; undefined where it can. */
function obstacle(): string | undefined {
  const succeeds = (...args: readonly string[]) =>
    spawnSync('docker', args, { stdio: 'ignore', timeout: 120_000 }).status === 0;
  if (process.platform !== 'linux') return 'only Linux has containers in the network of the host';
  if (!succeeds('version')) return 'no container engine answers "docker version"';
  const images = readDockerfile().flatMap(({ name, words }) =>
    name === 'FROM' ? words.split(' ').slice(0, 1) : [],
  );
  const missing = images.find((image) => !succeeds('image', 'inspect', image) && !succeeds('pull', image));
  return missing === undefined ? undefined : `the image ${missing} cannot be pulled`;
}

const why = obstacle();
if (why !== undefined) console.warn(`Tests of the image in a container are skipped: ${why}.`);

describe.skipIf(why !== undefined)('the image', () => {
  const tag = `filestore-db-test:${process.pid}`;
  const runbook = readFileSync(join(PACKAGE_ROOT, 'docs', 'operations.md'), 'utf8');
  /** The commands of the runbook, by their start. */
  const documented = (start: string) =>
    [...runbook.matchAll(/^docker .*$/gm)].flatMap(([line]) => (line.startsWith(start) ? [line] : []));
  beforeAll(async () => {
    const [build = ''] = documented('docker build');
    await run('sh', ['-c', build.replace('apphub/filestore-db', tag)], { cwd: PACKAGE_ROOT });
  }, 600_000);
  afterAll(() => run('docker', ['image', 'rm', '--force', tag]));

  test('migrates by default, and runs the other commands, as the runbook says', async () => {
    // The container's user cannot pass through the folder of a Unix socket.
    const proxy = await startProxy(database().url);
    const env = { ...process.env, FILESTORE_MIGRATION_DATABASE_URL: proxy.url };
    const start = (line: string) => {
      const command = line
        .replace('apphub/filestore-db', tag)
        .replace('docker run', 'docker run --read-only --network host');
      return run('sh', ['-c', command], { env });
    };
    try {
      const [migrate = '', ...others] = documented('docker run');
      expect(others.length).toBeGreaterThan(0);
      expect((await start(migrate)).stdout).toContain(`applied ${committedMigrations().length} migrations`);
      for (const line of others) await start(line);
    } finally {
      await proxy.stop();
    }
  });

  test('runs as a user who is not root and who cannot change it', async () => {
    const { stdout } = await run('docker', [
      ...['run', '--rm', '--entrypoint', 'sh', tag, '-c'],
      'id -u; find /filestore -writable | head -1',
    ]);
    expect(stdout).toBe('1000\n');
  });
});
