import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { copyPackage, type PackageCopy } from '../harness/package-copy.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { committedMigrations } from './support/packages/committed-files.ts';

const run = promisify(execFile);

interface Block {
  readonly language: string;
  readonly text: string;
}

const readme = readFileSync(join(PACKAGE_ROOT, 'README.md'), 'utf8');
const blocks: readonly Block[] = [...readme.matchAll(/^( *)```(\w+)\n([\s\S]*?)^\1```$/gm)].map(
  ([, indent = '', language = '', text = '']) => ({
    language,
    text: text.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  }),
);
let copy: PackageCopy;
let env: Record<string, string | undefined>;
let server: ChildProcess | undefined;
/** The output of db:watch. */
let watched = '';
/** The URL of the database of db:watch. */
let databaseUrl: string;

beforeAll(() => {
  copy = copyPackage({ sources: true });
  env = { PATH: process.env.PATH, HOME: process.env.HOME };
});
afterAll(async () => {
  server?.kill('SIGINT');
  const pidFile = join(copy.folder, '.postgres', 'server', 'data', 'postmaster.pid');
  await vi.waitFor(() => expect(existsSync(pidFile)).toBe(false), { timeout: 20_000 });
  copy.remove();
});

const shell = async (command: string) => (await run('sh', ['-c', command], { cwd: copy.folder, env })).stdout;

/** Starts db:watch, and waits until it has applied everything. */
async function startWatch(command: string): Promise<void> {
  const child = spawn('sh', ['-c', `exec ${command}`], {
    cwd: copy.folder,
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  server = child;
  child.stdout.on('data', (chunk) => {
    watched += chunk;
  });
  await untilWatched('Up to date: current.sql is empty');
  databaseUrl = /To open it: (.*)/.exec(watched)?.[1] ?? '';
}

async function untilWatched(text: string): Promise<void> {
  await vi.waitFor(() => expect(watched).toContain(text), { timeout: 60_000 });
}

/** Writes the migration that the README shows, which db:watch applies. Its column may exist already. */
async function writeMigration(text: string): Promise<void> {
  writeFileSync(join(copy.folder, 'migrations', 'current.sql'), text);
  await untilWatched('Applied current.sql');
  expect(await query('select owner_hint from filestore.backend_mounts limit 0')).toEqual([]);
}

async function query(text: string): Promise<readonly Record<string, unknown>[]> {
  const client = new pg.Client(databaseUrl);
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

/** The expected effect of each command of the README. */
const effects: Readonly<Record<string, (output: string) => void | Promise<void>>> = {
  'npm run db:migrate:filestore': (output) =>
    expect(output).toMatch(
      new RegExp(`(applied|Up to date:) ${committedMigrations(copy.folder).length} migrations`),
    ),
  'npm run example -- node_modules': (output) =>
    expect(output).toMatch(/^Applied [\d,]+ changes, saw [\d,]+ nodes/m),
  'npm run db:commit -- -m "Owner hints"': () =>
    expect(committedMigrations(copy.folder).at(-1)).toMatch(/^\d+-owner-hints\.sql$/),
  'npm run db:docs': (output) => {
    for (const file of ['filestore.txt', 'dictionary.md', 'rows.d.ts']) {
      expect(output).toContain(`schema/${file}`);
      expect(readFileSync(join(copy.folder, 'schema', file), 'utf8')).toContain('owner_hint');
    }
  },
  'npm run db:check': (output) => expect(output).toMatch(/^\d+ gates passed, 0 failed/m),
  'npm run db:verify:filestore': (output) => expect(output).toContain('the schema matches its migrations'),
  'npm run db:status:filestore': (output) =>
    expect(output).toContain(`${committedMigrations(copy.folder).length} migrations applied, 0 pending`),
};

async function runCommand(command: string): Promise<void> {
  if (command === 'npm run db:watch') return startWatch(command);
  if (command === 'npm ci' || command === 'npm test') {
    // These two commands run this test.
    return expect(readFileSync(join(PACKAGE_ROOT, '.ci', 'run'), 'utf8').split('\n')).toContain(command);
  }
  const check = effects[command] ?? expect.fail(`this test does not check the effect of "${command}"`);
  await check(await shell(command));
}

/** Runs a module that imports the package, and returns its output. */
async function runModule(code: string, url: string): Promise<string> {
  if (!existsSync(join(copy.folder, 'dist'))) await shell('npm run build');
  writeFileSync(join(copy.folder, 'module.ts'), code);
  const { stdout } = await run('node', ['--import', 'tsx', 'module.ts'], {
    cwd: copy.folder,
    env: { ...env, DATABASE_URL: url },
  });
  return stdout;
}

async function runMigrationsCode(code: string): Promise<void> {
  await query('create database migrated_by_program');
  const url = Object.assign(new URL(databaseUrl), { pathname: '/migrated_by_program' }).href;
  const { length } = committedMigrations(copy.folder);
  const first = await runModule(code, url);
  expect(first).toContain(`\n${length} applied to migrated_by_program, 0 earlier\nSchema: same\n`);
  for (const filename of committedMigrations(copy.folder)) expect(first).toContain(`${filename}: `);
  expect(await runModule(code, url)).toBe(
    `0 applied to migrated_by_program, ${length} earlier\nSchema: unchecked\n`,
  );
}

async function runServiceCode(code: string): Promise<void> {
  await query(
    "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('media', 'local', '/srv/media')",
  );
  expect(await runModule(code, databaseUrl)).toMatch(/^\d+\n$/);
  const nodes = await query(
    "select path from filestore.view_filestore_active_nodes where mount_key = 'media'",
  );
  expect(nodes).toContainEqual({ path: 'reports/2026/report.pdf' });
}

test('every command and code block runs as written, in order, with the described effect', async () => {
  const ran = { sh: 0, sql: 0, ts: 0 };
  for (const { language, text } of blocks) {
    if (language === 'sh') for (const command of text.trim().split('\n')) await runCommand(command);
    else if (language === 'sql') await writeMigration(text);
    else if (language === 'ts' && text.includes('runMigrations')) await runMigrationsCode(text);
    else if (language === 'ts') await runServiceCode(text);
    else expect(language, 'a language that this test cannot run').toBe('mermaid');
    if (language in ran) ran[language as keyof typeof ran] += 1;
  }
  expect(ran).toEqual({ sh: 7, sql: 1, ts: 2 });
}, 300_000);

test('every link leads to a file', () => {
  const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map((match) => match[1] ?? '');
  expect(links.length).toBeGreaterThan(3);
  for (const link of links) expect(existsSync(join(PACKAGE_ROOT, link)), link).toBe(true);
});
