import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { MODEL_FILE } from '../../src/catalog/committed-model.ts';
import { type CatalogClient, readCatalog } from '../../src/catalog/read.ts';
import { type ModelledMigration, renderModel } from '../../src/catalog/render.ts';
import { runMigrations } from '../../src/db/migrations.ts';
import { FilestoreError } from '../../src/errors.ts';
import { readCommittedMigrations } from '../../src/graphile/committed-migrations.ts';
import { MIGRATIONS_FOLDER, PACKAGE_ROOT } from '../../src/package-root.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { withTemporaryDatabase } from '../embedded/temporary-database.ts';
import { readIfThere } from '../read-if-there.ts';
import type { Problem } from '../sources/problem.ts';
import { readAccess } from './access.ts';
import { describeSchema } from './describe-schema.ts';
import { withDiagram } from './diagram.ts';
import { renderDictionary } from './dictionary.ts';
import { renderCalls } from './render-calls.ts';
import { readReasons, renderReasons } from './render-reasons.ts';
import { renderRowTypes } from './render-row-types.ts';

const README = 'README.md';

/** A generated and committed file. */
export interface GeneratedFile {
  /** Path in the package, such as `schema/filestore.txt`. */
  readonly file: string;
  readonly text: string;
}

/**
 * Generates all files from a database with the committed migrations.
 * @param root The folder of the README, which has a generated part.
 */
export async function generateFiles(
  client: CatalogClient,
  migration: ModelledMigration,
  root: string = PACKAGE_ROOT,
): Promise<readonly GeneratedFile[]> {
  const catalog = await readCatalog(client);
  const description = await describeSchema(client);
  const access = await readAccess(client);
  const rowTypes = renderRowTypes(description, access);
  return [
    { file: MODEL_FILE, text: renderModel(catalog, migration) },
    { file: 'schema/dictionary.md', text: renderDictionary(description) },
    { file: 'schema/rows.d.ts', text: rowTypes },
    { file: 'src/sql/calls.ts', text: renderCalls(description, access, rowTypes) },
    { file: 'src/sql/reasons.ts', text: renderReasons(await readReasons(client)) },
    { file: README, text: withDiagram((await readIfThere(join(root, README))) ?? '', description) },
  ];
}

/**
 * Regenerates all files from an empty database with the committed migrations.
 * @returns the paths of the files in the package.
 * @throws {RunAbortedError} when the signal was aborted before they were generated.
 */
export async function writeGeneratedFiles(signal?: AbortSignal): Promise<readonly string[]> {
  const generated = await generateFromCommitted(signal);
  for (const { file, text } of generated) {
    await mkdir(dirname(join(PACKAGE_ROOT, file)), { recursive: true });
    await writeFile(join(PACKAGE_ROOT, file), text);
  }
  return generated.map(({ file }) => file);
}

/** Compares the generated files with the committed ones. */
export async function findStaleFiles(
  generated: readonly GeneratedFile[],
  root: string = PACKAGE_ROOT,
): Promise<readonly Problem[]> {
  const problems = generated.map(async (file) =>
    describeStaleness(file, await readIfThere(join(root, file.file))),
  );
  return (await Promise.all(problems)).flat();
}

/** Describes the first difference of a committed file; undefined if there is none. */
export function describeStaleness(
  generated: GeneratedFile,
  committed: string | undefined,
): readonly Problem[] {
  const { file, text } = generated;
  const remedy = 'Regenerate it: npm run db:docs.';
  if (committed === undefined) return [{ file, line: null, what: 'is missing', remedy }];
  if (committed === text) return [];
  const [is, should] = [committed.split('\n'), text.split('\n')];
  const differs = (line: string, index: number) => line !== is[index];
  // A header with a checksum differs whenever another line does.
  const body = should.indexOf('');
  const inBody = should.findIndex((line, index) => index > body && differs(line, index));
  const found = inBody === -1 ? should.findIndex(differs) : inBody;
  // If no line differs, the file has extra ones at its end.
  const at = found === -1 ? should.length : found;
  const quote = (line: string | undefined) => (line === undefined ? 'ends' : `has "${line.trim()}"`);
  const what = `is out of date: this line ${quote(is[at])}; regenerated, it ${quote(should[at])}`;
  return [{ file, line: at + 1, what, remedy }];
}

async function generateFromCommitted(signal: AbortSignal | undefined): Promise<readonly GeneratedFile[]> {
  const migration = (await readCommittedMigrations(MIGRATIONS_FOLDER)).at(-1);
  if (migration === undefined)
    throw new FilestoreError('MIGRATIONS_MISSING', 'There is no committed migration.');
  const generate = async (url: string) => {
    // Not compared, because the model to compare with is about to be written.
    await runMigrations({ env: { DATABASE_URL: url }, compareSchema: false });
    return withClient(url, (client) => generateFiles(client, migration));
  };
  return withTemporaryDatabase(generate, signal);
}
