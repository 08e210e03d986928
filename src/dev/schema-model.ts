import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { MODEL_FILE } from '../catalog/committed.ts';
import { readCatalog } from '../catalog/read.ts';
import { renderModel } from '../catalog/render.ts';
import { readCommittedMigrations } from '../db/history.ts';
import { runMigrations } from '../db/migrations.ts';
import { MigrationsMissingError } from '../errors.ts';
import { PACKAGE_ROOT } from '../package-root.ts';
import { makeFolderFor, serverAccount } from './embedded/account.ts';
import { findEmbeddedBinaries } from './embedded/binaries.ts';
import { serverUrl, startServer } from './embedded/server.ts';

const MODEL_PATH = join(PACKAGE_ROOT, MODEL_FILE);
/** Nothing outlives the run. */
const FAST = ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off'];

/**
 * Writes the model of the schema anew: what the committed migrations make of an empty database.
 * @returns the file's path, as seen from the package.
 */
export async function writeSchemaModel(): Promise<string> {
  const text = await generateModel();
  await mkdir(dirname(MODEL_PATH), { recursive: true });
  await writeFile(MODEL_PATH, text);
  return MODEL_FILE;
}

/**
 * Checks that the committed model is what the committed migrations make of an empty database.
 * @returns what is to be mended, one line each.
 */
export async function checkSchemaModel(): Promise<readonly string[]> {
  const committed = await readFile(MODEL_PATH, 'utf8').catch(() => undefined);
  if (committed === undefined) return [`${MODEL_FILE} is missing. Write it: npm run db:docs.`];
  return describeStaleness(committed, await generateModel());
}

/** Says where the file's text parts from what it should be; nothing when it does not. */
export function describeStaleness(committed: string, generated: string): readonly string[] {
  if (committed === generated) return [];
  const [is, should] = [committed.split('\n'), generated.split('\n')];
  // The header differs whenever anything does.
  const body = should.indexOf('');
  const parting = should.findIndex((line, index) => index > body && line !== is[index]);
  const at = parting === -1 ? should.findIndex((line, index) => line !== is[index]) : parting;
  const quote = (line: string | undefined) => (line === undefined ? 'ends' : `has "${line.trim()}"`);
  return [
    `${MODEL_FILE} is not what the migrations make: line ${at + 1} ${quote(is[at])}, a new one ${quote(should[at])}. Write it again: npm run db:docs.`,
  ];
}

async function generateModel(): Promise<string> {
  const migration = (await readCommittedMigrations(join(PACKAGE_ROOT, 'migrations'))).at(-1);
  if (migration === undefined) throw new MigrationsMissingError('There is no committed migration.');
  return withTemporaryDatabase(async (url) => {
    // Verified, it would be against the very model that is about to be written.
    const options = { env: { DATABASE_URL: url }, verifySchema: false };
    await runMigrations(options);
    const client = new pg.Client(url);
    await client.connect();
    try {
      return renderModel(await readCatalog(client), migration);
    } finally {
      await client.end();
    }
  });
}

/** Runs `work` with a server of its own, so that nobody's database is touched, and that it is the same everywhere. */
async function withTemporaryDatabase<T>(work: (url: string) => Promise<T>): Promise<T> {
  // Short: the path of a Unix socket has room for about a hundred bytes.
  const folder = mkdtempSync(join(tmpdir(), 'fs-model-'));
  try {
    const account = serverAccount();
    makeFolderFor(account, folder);
    const server = await startServer({
      binaries: await findEmbeddedBinaries(account, folder),
      folder,
      account,
      listen: { kind: 'socket', folder, port: 5432 },
      settings: FAST,
    });
    try {
      return await work(serverUrl(server.listen, server.password, 'postgres'));
    } finally {
      await server.stop();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
