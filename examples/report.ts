import type { ScanDifferencesRow } from '../schema/rows.d.ts';
import { getPool } from '../src/index.ts';
import { listTotals, scanDifferences } from '../src/sql/index.ts';
import { linesOf, type Tallied, Tally } from './tally.ts';
import { count, plain, size } from './words.ts';

const PAGE = 10_000;

/** Kinds of differences, in the order of the report. */
const HEADINGS = {
  move: 'Moved',
  create: 'New',
  change: 'Changed',
  find: 'Found again',
  missing: 'Missing',
  delete: 'Replaced by something else',
  skip: 'Left alone, since others wrote to them in the meantime',
  refuse: 'Left out, names that nodes cannot have',
} as const;

type Heading = keyof typeof HEADINGS;

/** Prints what a planned scan will change. It reads page by page, and keeps only what it prints. */
export async function printDifferences(scanId: string): Promise<void> {
  const groups = new Tally<Heading, ScanDifferencesRow>();
  let afterNumber = '0';
  for (;;) {
    const page = await scanDifferences(getPool(), { scanId, afterNumber, pageSize: PAGE });
    for (const row of page) groups.add(headingOf(row), row);
    if (page.length < PAGE) break;
    afterNumber = page.at(-1)?.number ?? afterNumber;
  }
  for (const heading of Object.keys(HEADINGS) as Heading[]) {
    const group = groups.get(heading);
    if (group !== undefined) await printGroup(heading, group);
  }
  if (groups.keys().every((heading) => heading === 'refuse')) console.log('Nothing has changed.');
}

function headingOf({ action }: ScanDifferencesRow): Heading {
  if (!(action in HEADINGS)) throw new Error(`The scan has a difference of the unknown kind "${action}".`);
  return action as Heading;
}

async function printGroup(heading: Heading, { total, first }: Tallied<ScanDifferencesRow>): Promise<void> {
  const files = heading === 'move' ? await countFiles(first) : new Map<string, string>();
  const lines = first.map((row) => {
    const below = files.get(row.node_id ?? '');
    return `${placeOf(heading, row)}${below === undefined ? '' : ` (${count(below, 'file')})`}`;
  });
  console.log(`${HEADINGS[heading]}: ${total.toLocaleString('en')}\n${linesOf({ total, first: lines })}`);
}

/** The number of files below each directory that moves. */
async function countFiles(rows: readonly ScanDifferencesRow[]): Promise<ReadonlyMap<string, string>> {
  const nodeIds = rows.flatMap(({ kind, node_id }) =>
    kind === 'directory' && node_id !== null ? [node_id] : [],
  );
  const totals = await listTotals(getPool(), { nodeIds });
  return new Map(totals.map(({ node_id, file_count }) => [node_id, file_count]));
}

function placeOf(heading: Heading, { kind, path, from_path }: ScanDifferencesRow): string {
  const end = kind === 'directory' ? '/' : '';
  const from = `${plain(from_path ?? path)}${end}`;
  if (heading === 'move') return `${from} → ${plain(path)}${end}`;
  return heading === 'missing' || heading === 'delete' ? from : `${plain(path)}${end}`;
}

/** Prints the sizes of the largest directories, each with everything below it, and of the missing files in them. */
export async function printLargest(mountId: string, path: string): Promise<void> {
  const below = path === '' ? '' : "and (path = $2 or (path > $2 || '/' and path < $2 || '0'))";
  const values = path === '' ? [mountId] : [mountId, path];
  const { rows } = await getPool().query<{
    readonly path: string;
    readonly size_bytes: string;
    readonly file_count: string;
  }>(
    `select path, size_bytes, file_count
     from filestore.view_filestore_directories
     where backend_mount_id = $1 ${below}
     order by size_bytes desc, path
     limit 10`,
    values,
  );
  console.log('Largest directories:');
  for (const { path, size_bytes, file_count } of rows) {
    console.log(
      `  ${size(size_bytes).padStart(9)}  ${path === '' ? '.' : `${plain(path)}/`} (${count(file_count, 'file')})`,
    );
  }
  const missing = await getPool().query<{ readonly files: string; readonly bytes: string | null }>(
    `select count(*) as files, sum(size_bytes) as bytes
     from filestore.nodes
     where backend_mount_id = $1 ${below} and live and kind = 'file' and state = 'missing'`,
    values,
  );
  const { files, bytes } = missing.rows[0] ?? { files: '0', bytes: null };
  if (files === '0') return;
  console.log(
    `They include ${count(files, 'missing file')} (${size(bytes ?? '0')}), which keep their ids until a service deletes them.`,
  );
}
