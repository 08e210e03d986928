import pg, { type Client } from 'pg';
import { type BenchDatabase, withDatabase } from '../bench-server.ts';
import type { Context } from '../context.ts';
import { foldAll } from '../folding.ts';
import { compare, settle, single, type Target, thousands } from '../measure.ts';
import { followByPath } from './by-path.ts';
import { type Change, listDisk } from './generated-disk.ts';
import { type ScanFigures, scanDisk } from './scan-disk.ts';
import { compareIds, type IdsAfterChanges, rememberIds } from './scan-truth.ts';
import { createTableOfPaths, writeTableOfPaths } from './table-of-paths.ts';

const CONNECTIONS = 2;
/** A tree that shows whether memory grows with the tree. */
const SMALL_PART = 10;
/** At most so many nodes are followed without scans, path by path and a thousand paths at a time: these take long. */
const BY_PATH_NODES = 2_000;
const BY_BATCH_NODES = 20_000;
/** The targets in seconds are for a mount of this size, and two cores. */
const NODES_OF_TARGETS = 1_000_000;

const PASSES = [
  { name: 'first scan', side: 'before', most: null },
  { name: 'scan with nothing changed', side: 'before', most: 15 },
  { name: 'scan with 1 % changed', side: 'after', most: 30 },
  { name: 'scan after it', side: 'after', most: null },
] as const satisfies readonly { name: string; side: keyof Change; most: number | null }[];

type Pass = (typeof PASSES)[number]['name'];
type OfPasses<Figures> = Readonly<Record<Pass, Figures>>;

/** Scans of a mount in turns with its changes, and the same without scans: path by path, and into a table of paths. */
export async function measureScans(context: Pick<Context, 'server' | 'nodes' | 'report'>): Promise<void> {
  const small = Math.max(1_000, Math.floor(context.nodes / SMALL_PART));
  const memory = await withDatabase(context.server, (database) => scanAll(database, small));
  await withDatabase(context.server, async (database) => {
    const scans = await scanAll(database, context.nodes);
    reportScans(context, scans.figures, memory.figures, thousands(small));
    reportIds(context, scans);
    const others = {
      'against path by path': await measureByPath(
        database,
        'by-path',
        Math.min(context.nodes / 10, BY_PATH_NODES),
        1,
      ),
      'against lookups by a thousand': await measureByPath(
        database,
        'by-batch',
        Math.min(context.nodes, BY_BATCH_NODES),
        1_000,
      ),
      'against a table of paths': await measureTable(database, context.nodes),
    };
    for (const { name } of PASSES.slice(0, 3)) {
      const { entries, seconds } = scans.figures[name];
      for (const [other, rates] of Object.entries(others)) {
        context.report(compare(`${name}: entries, ${other}`, '/s', [entries / seconds], [rates[name]]));
      }
    }
  });
}

interface Scans {
  readonly figures: OfPasses<ScanFigures>;
  readonly ids: IdsAfterChanges;
}

async function scanAll({ client, url }: BenchDatabase, nodes: number): Promise<Scans> {
  await createMount(client, 'scanned');
  let ids: IdsAfterChanges | undefined;
  const figures = await ofPasses(client, async ({ name, side }) => {
    if (name === 'scan with 1 % changed') await rememberIds(client, 'scanned');
    const found = await withConnections(url, (clients) =>
      scanDisk(clients, 'scanned', listDisk(nodes, side)),
    );
    if (name === 'scan with 1 % changed') ids = await compareIds(client, nodes);
    return found;
  });
  if (ids === undefined) throw new Error('no scan had changes');
  return { figures, ids };
}

function reportScans(
  { report, nodes }: Pick<Context, 'report' | 'nodes'>,
  scans: OfPasses<ScanFigures>,
  smallScans: OfPasses<ScanFigures>,
  small: string,
): void {
  for (const { name, most } of PASSES) {
    const { entries, phases, seconds, serverCpuSeconds, clientMb, serverMb, changes } = scans[name];
    const target: Target | null =
      most === null || nodes !== NODES_OF_TARGETS ? null : { bound: 'at most', value: most, of: 'here' };
    report(
      single(`${name}, ${thousands(entries)} entries`, 's', [seconds], target),
      single(`${name}: entries recorded`, '/s', [entries / phases.record]),
      ...Object.entries(phases).map(([phase, time]) => single(`${name}: ${phase}`, 's', [time])),
      ...(serverCpuSeconds === null
        ? []
        : [single(`${name}: processor time of the server`, 's', [serverCpuSeconds])]),
      compare(
        `${name}: memory of the client, against ${small} nodes`,
        'MB',
        [clientMb],
        [smallScans[name].clientMb],
      ),
      ...(serverMb === null
        ? []
        : [
            compare(
              `${name}: memory of a backend, against ${small} nodes`,
              'MB',
              [serverMb],
              [smallScans[name].serverMb ?? Number.NaN],
            ),
          ]),
      single(`${name}: changes`, 'count', [changes], name === 'scan after it' ? none : null),
    );
  }
}

const none: Target = { bound: 'at most', value: 0, of: 'here' };

function reportIds({ report }: Pick<Context, 'report'>, { ids }: Scans): void {
  report(
    single('ids that a scan with 1 % changed keeps', '%', [(100 * ids.kept) / ids.objects], {
      bound: 'at least',
      value: 100,
      of: 'here',
    }),
    single('nodes that it pairs with another object', 'count', [ids.wrong], none),
  );
}

/** Entries per second. */
async function measureByPath(
  { client }: BenchDatabase,
  key: string,
  nodes: number,
  batch: number,
): Promise<OfPasses<number>> {
  await createMount(client, key);
  return ofPasses(client, async ({ side }) => {
    const time = await followByPath(client, key, listDisk(nodes, side, batch));
    return nodes / time;
  });
}

/** Entries per second. */
async function measureTable({ client, url }: BenchDatabase, nodes: number): Promise<OfPasses<number>> {
  await createTableOfPaths(client);
  return ofPasses(client, async ({ side }) => {
    const { seconds } = await withConnections(url, (clients) =>
      writeTableOfPaths(clients, listDisk(nodes, side)),
    );
    return nodes / seconds;
  });
}

/** Between the passes, the server does what it would do in the background. */
async function ofPasses<Figures>(
  client: Client,
  measure: (pass: (typeof PASSES)[number]) => Promise<Figures>,
): Promise<OfPasses<Figures>> {
  const figures: [Pass, Figures][] = [];
  for (const pass of PASSES) {
    await foldAll(client);
    await client.query('vacuum analyze');
    await settle(client);
    process.stderr.write(`measuring: ${pass.name}\n`);
    figures.push([pass.name, await measure(pass)]);
  }
  return Object.fromEntries(figures) as OfPasses<Figures>;
}

async function createMount(client: Client, key: string): Promise<void> {
  await client.query(
    "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ($1, 'local', '/srv/' || $1)",
    [key],
  );
}

async function withConnections<T>(url: string, work: (clients: readonly Client[]) => Promise<T>): Promise<T> {
  const clients = Array.from({ length: CONNECTIONS }, () => new pg.Client(url));
  try {
    for (const client of clients) await client.connect();
    return await work(clients);
  } finally {
    for (const client of clients) await client.end();
  }
}
