/**
 * Makes a catalogue follow a folder: lists the folder, prints what is new, moved, changed and missing since the last run, and
 * writes that to the catalogue. Renamed and moved files and directories keep their ids.
 *
 *   npm run example -- [folder] [--confirm-missing]        default: node_modules
 *
 * Uses the database of the environment, or the embedded one, which keeps its data between runs. `../src/index.ts` and
 * `../src/sql/index.ts` are `@apphub/filestore` and `@apphub/filestore/sql` in a service.
 */
import { realpath, stat } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { openEmbedded } from '../dev/embedded/embedded.ts';
import type { ScanRow } from '../schema/rows.d.ts';
import { closePool, getPool, runMigrations, serviceConnection, withTransaction } from '../src/index.ts';
import { applyScan, beginScan, cancelScan, expireScans, foldRollups, isRefusal } from '../src/sql/index.ts';
import { openFolder } from './mount.ts';
import { Progress } from './progress.ts';
import { recordFolder } from './record.ts';
import { printDifferences, printLargest } from './report.ts';
import { count } from './words.ts';

/** How long a scan of a killed run blocks the next run. */
const EXPIRE_AFTER = '5 minutes';
/** What a shell reports for a program that Ctrl-C ended. */
const INTERRUPTED = 130;

interface Options {
  readonly confirmsMissing: boolean;
  readonly signal: AbortSignal;
}

async function main(folder: string, options: Options): Promise<void> {
  const root = await realpath(folder);
  if (!(await stat(root)).isDirectory())
    throw new Error(`${root} is not a folder. Give the path of a folder.`);
  const { mountId, mountKey, path, withBirthTimes } = await openFolder(root);
  await expireScans(getPool());
  const { id } = await beginScan(getPool(), { mountKey, path, expireAfter: EXPIRE_AFTER });
  console.log(`Scanning ${root}: mount "${mountKey}", scan ${id}. Ctrl-C cancels it.`);
  try {
    await recordFolder(id, { root, withBirthTimes, signal: options.signal });
    await follow(id, options);
  } catch (error) {
    // If the server cannot be reached, the scan expires.
    await cancelScan(getPool(), { scanId: id }).catch(() => undefined);
    throw error;
  }
  // A service has a worker that folds.
  while ((await foldRollups(getPool())) >= 100);
  await printLargest(mountId, path);
}

/** Plans the changes, prints them, and carries them out. */
async function follow(scanId: string, { confirmsMissing, signal }: Options): Promise<void> {
  const apply = () =>
    withTransaction(
      (client) => applyScan(client, { scanId, ...(confirmsMissing && { maxMissingShare: 1 }) }),
      { retries: 3 },
    );
  const progress = new Progress();
  try {
    progress.show('Comparing …');
    // The first call plans.
    let scan = await apply();
    progress.end();
    await printDifferences(scanId);
    while (scan.state !== 'finished') {
      signal.throwIfAborted();
      scan = await apply();
      progress.show(`Applied ${appliedOf(scan)} …`);
    }
    progress.end();
    console.log(`Applied ${appliedOf(scan)}.`);
  } catch (error) {
    progress.end();
    if (!isRefusal(error, 'scans_too_many_missing')) throw error;
    const remedy =
      'Check that the disk is mounted. If the files are really gone, run the command again with --confirm-missing.';
    throw new Error(`${error.message}. ${remedy}`, { cause: error });
  }
}

function appliedOf({ created, moved, changed, found, missing, deleted, seen }: ScanRow): string {
  const changes = [created, moved, changed, found, missing, deleted];
  const sum = changes.reduce((total, number) => total + Number(number), 0);
  return `${count(sum, 'change')}, saw ${count(seen, 'node')}`;
}

/** What a user needs of an error. Its stack trace would only hide it. */
function describe(error: unknown): string {
  if (isRefusal(error) && error.hint !== undefined) return `${error.message}. ${error.hint}`;
  return error instanceof Error ? error.message : String(error);
}

/** A signal that Ctrl-C aborts; a second Ctrl-C ends the program at once. */
function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  const reason = new Error(
    'Interrupted: the scan was canceled. Run the command again to scan from the start.',
  );
  process.once('SIGINT', () => {
    console.error('Canceling …');
    controller.abort(reason);
  });
  return controller.signal;
}

async function run(signal: AbortSignal): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { 'confirm-missing': { type: 'boolean', default: false } },
  });
  const embedded = serviceConnection() === undefined ? await openEmbedded() : undefined;
  if (embedded !== undefined) process.env.FILESTORE_DATABASE_URL = embedded.url;
  try {
    await runMigrations();
    await main(positionals[0] ?? 'node_modules', { confirmsMissing: values['confirm-missing'], signal });
  } finally {
    await closePool();
    await embedded?.close();
  }
}

// A closed pipe (… | head) must not stop a scan.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});
const signal = interruptSignal();
await run(signal).catch((error) => {
  console.error(describe(error));
  process.exitCode = signal.aborted ? INTERRUPTED : 1;
});
