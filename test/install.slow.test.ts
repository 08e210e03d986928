import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text as readText } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { replaceInUrl } from '../src/settings/database-url.ts';
import { createMount } from '../src/sql/index.ts';
import { withClient } from '../src/testing/with-client.ts';
import { packedServiceForFile } from './support/packages/packed-service.ts';
import { startOwnServer } from './support/servers/own-server.ts';

const execute = promisify(execFile);
const service = packedServiceForFile();
const page = readFileSync(join(PACKAGE_ROOT, 'docs', 'install.md'), 'utf8');
const blocks = [...page.matchAll(/^```\w+\n([\s\S]*?)^```$/gm)].map(([, code = '']) => code);

/** The only block of the page that contains a text. */
function block(text: string): string {
  const [found, ...more] = blocks.filter((code) => code.includes(text));
  if (found === undefined || more.length > 0) throw new Error(`not one block has "${text}"`);
  return found;
}

const PUBLISH = block('npm publish');
const WORKSPACES = block('"workspaces"');
const BUILD = block('npm run build');
const TSCONFIG = block('"compilerOptions"');
const BUNDLE = block('npx esbuild');
const ROLES = block('create role');
const VARIABLES = block('FILESTORE_MIGRATION_DATABASE_URL');
const GRANT = block('grant_access');

test('every block of docs/install.md is run by a test', () => {
  const run = [PUBLISH, WORKSPACES, BUILD, TSCONFIG, BUNDLE, ROLES, VARIABLES, GRANT];
  expect(blocks.filter((code) => !run.includes(code))).toEqual([]);
});

async function shell(script: string, cwd: string, env: NodeJS.ProcessEnv = {}): Promise<string> {
  const { PATH, HOME } = process.env;
  const { stdout } = await execute('sh', ['-ec', script], { cwd, env: { PATH, HOME, ...env } }).catch(
    (error) => {
      // The compiler prints its errors there.
      throw new Error(`${error.message}${error.stdout}`);
    },
  );
  return stdout;
}

function write(folder: string, path: string, text: string): void {
  mkdirSync(join(folder, path, '..'), { recursive: true });
  writeFileSync(join(folder, path), text);
}

describe('docs/install.md', () => {
  test('its commands publish a tarball to a registry', async () => {
    const published: unknown[] = [];
    const registry = createServer(async (request, response) => {
      const body = await readText(request);
      if (request.method === 'PUT') published.push(JSON.parse(body));
      response.writeHead(request.method === 'PUT' ? 201 : 404).end('{}');
    });
    await new Promise<void>((resolve) => registry.listen(0, '127.0.0.1', resolve));
    const host = `127.0.0.1:${(registry.address() as AddressInfo).port}`;
    const folder = join(service().folder, 'publish');
    write(folder, 'npmrc', `//${host}/:_authToken=token`);
    const tarball = readdirSync(service().folder).find((name) => name.endsWith('.tgz')) ?? '';
    cpSync(join(service().folder, tarball), join(folder, tarball));
    try {
      const env = { REGISTRY: `http://${host}`, NPM_CONFIG_USERCONFIG: join(folder, 'npmrc') };
      await shell(PUBLISH, folder, env);
    } finally {
      registry.close();
    }
    const { version, exports } = JSON.parse(
      readFileSync(join(service().packageFolder, 'package.json'), 'utf8'),
    );
    expect(published).toMatchObject([{ name: '@apphub/filestore', versions: { [version]: { exports } } }]);
  });

  test('a service of a workspace finds the package after its command', async () => {
    const root = join(service().folder, 'workspace');
    write(root, 'package.json', WORKSPACES);
    write(
      root,
      'services/media/service.mjs',
      "import('@apphub/filestore').then(() => console.log('found'));",
    );
    cpSync(join(service().folder, 'source'), join(root, 'filestore'), {
      recursive: true,
      verbatimSymlinks: true,
      filter: (path) => !path.endsWith('/dist'),
    });
    // As npm install links it.
    mkdirSync(join(root, 'node_modules', '@apphub'), { recursive: true });
    symlinkSync(join('..', '..', 'filestore'), join(root, 'node_modules', '@apphub', 'filestore'));
    await shell(BUILD, root);
    expect(await shell('node service.mjs', join(root, 'services', 'media'))).toBe('found\n');
  });

  test('a service with its tsconfig.json, bundle and roles runs, and gets no right of an operator', async () => {
    const { folder } = service();
    write(folder, 'src/server.ts', SERVER);
    write(folder, 'tsconfig.json', TSCONFIG);
    await shell('node node_modules/typescript/bin/tsc', folder);
    symlinkSync(join(PACKAGE_ROOT, 'node_modules', '.bin'), join(folder, 'node_modules', '.bin'));
    await shell(BUNDLE, folder);
    const own = await startOwnServer();
    try {
      const url = await prepareDatabase(own.url);
      for (const file of ['dist/server.js', 'dist/server.mjs']) {
        expect(await shell(`node ${file}`, folder, { FILESTORE_DATABASE_URL: url })).toBe('a/b\n42501\n');
      }
    } finally {
      await own.stop();
    }
  });
});

/** Runs the blocks about a database for development, and returns the URL of the service. */
async function prepareDatabase(server: string): Promise<string> {
  await withClient(server, async (superuser) => {
    for (const statement of ROLES.split(/^(?=create)/m)) await superuser.query(statement);
  });
  const script = VARIABLES.replace(
    'npx --no-install filestore-db',
    'node node_modules/@apphub/filestore/dist/cli.js',
  ).replaceAll(/postgres:\/\/(\w+):(\w+)@localhost:5432\/(\w+)/g, (_, user, password, database) => {
    return `'${replaceInUrl('url', server, { user, password, database })}'`;
  });
  expect(await shell(script, service().folder)).toMatch(/applied \d+ migrations/);
  const [owner = '', url = ''] = [...script.matchAll(/'(.*)'/g)].map(([, quoted]) => quoted);
  await withClient(owner, async (client) => {
    await client.query(GRANT);
    await createMount(client, {
      mount: { mount_key: 'media', backend_kind: 'local', root_path: '/srv/media' },
    });
  });
  return url;
}

/** Does what a service may do, and something that only an operator may. */
const SERVER = `
  import { assertMigrated, closePool, withConnection } from '@apphub/filestore';
  import { ensureDirectory, purgeDeleted } from '@apphub/filestore/sql';
  await assertMigrated();
  await withConnection(async (client) => {
    console.log((await ensureDirectory(client, { mountKey: 'media', path: 'a/b' })).path);
    await purgeDeleted(client, { olderThan: '30 days' }).catch(({ code }) => console.log(code));
  });
  await closePool();`;
