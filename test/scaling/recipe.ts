import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { statementsOf } from '../support/packages/examples.ts';
import { until } from '../support/until.ts';
import type { ServerName, TwoServers } from './two-servers.ts';

/** A block of SQL in a recipe of docs/scaling.md. Its first line says where it runs. */
export interface Block {
  readonly servers: readonly ServerName[];
  /** `superuser` once as one; `repeated` until it prints what the document says; `copied` until it waits for the source; `proved` until it waits for nothing; `late` during the cut-over. */
  readonly mode: 'once' | 'superuser' | 'repeated' | 'copied' | 'proved' | 'late';
  readonly text: string;
}

/** The sections of docs/scaling.md whose blocks run on two servers. Each has a test. */
export const RECIPES: readonly string[] = [
  'Steps by hand',
  'Take it back',
  'A target that lost the mount',
  'Replicate the whole catalogue',
  'Sequences on PostgreSQL 19',
  'Read from a standby',
  'Read across servers',
];

const MODES: Readonly<Record<string, Block['mode']>> = {
  '': 'once',
  ', from PostgreSQL 19 on': 'once',
  ', as a superuser': 'superuser',
  ', until it prints this': 'repeated',
  ', until it waits for the source': 'copied',
  ', until it waits for nothing': 'proved',
  ', until it has "late"': 'late',
};

/** The blocks of SQL below a heading of docs/scaling.md, up to the next heading. */
export function recipeOf(heading: string): readonly Block[] {
  const document = readFileSync(join(PACKAGE_ROOT, 'docs', 'scaling.md'), 'utf8');
  const section = document.split(/^#+ /m).find((part) => part.startsWith(`${heading}\n`));
  if (section === undefined) throw new Error(`docs/scaling.md has no section "${heading}"`);
  return [...section.matchAll(/^( *)```sql\n([\s\S]*?)^\1```$/gm)].map(([, indent = '', block = '']) =>
    readBlock(block.replaceAll(new RegExp(`^${indent}`, 'gm'), '')),
  );
}

/** A primary is the source of its standby. */
const SERVERS: Readonly<Record<string, readonly ServerName[]>> = {
  'the source': ['source'],
  'the target': ['target'],
  both: ['source', 'target'],
  'the primary': ['source'],
  'the standby': ['target'],
};

function readBlock(block: string): Block {
  const [, where = '', how = '', text = ''] = /^-- on (both|the \w+)(.*)\n([\s\S]*)$/.exec(block) ?? [];
  const [servers, mode] = [SERVERS[where], MODES[how]];
  if (servers === undefined || mode === undefined || text === '')
    throw new Error(`where this block runs is not said:\n${block}`);
  return { servers, mode, text };
}

/** What functions printed, by name, which later blocks name in angle brackets. */
export type Printed = Map<string, string>;

/**
 * Runs a block on the servers that it names.
 * @param printed Receipts of earlier blocks; this one adds its own.
 * @throws {Error} When a statement fails, or prints something else than the document says.
 */
export async function runBlock(
  servers: Pick<TwoServers, ServerName>,
  block: Block,
  printed: Printed = new Map(),
): Promise<void> {
  for (const name of block.servers) {
    const text = withReceipts(withAddress(block.text, servers), printed);
    const { url, superuserUrl } = servers[name];
    const run = () =>
      withClient(block.mode === 'superuser' ? superuserUrl : url, (client) =>
        faultsOf(client, text, block.mode, printed),
      );
    if (block.mode === 'once' || block.mode === 'superuser') {
      const faults = await run();
      if (faults.length > 0) throw new Error(`on the ${name}: ${faults.join('\n')}`);
    } else {
      // The server may be down for a moment.
      await until(async () => (await run().catch((error) => [String(error)])).length === 0);
    }
  }
}

const NOT_YET: Readonly<Partial<Record<Block['mode'], (printed: string) => boolean>>> = {
  copied: (printed) => !printed.includes('on the source'),
  proved: (printed) => printed.includes('waits_for'),
  late: (printed) => !printed.includes('"late"'),
};

async function faultsOf(
  client: pg.Client,
  text: string,
  mode: Block['mode'],
  printed: Printed,
): Promise<readonly string[]> {
  const faults: string[] = [];
  for (const { statement, expected } of statementsOf(text)) {
    const rows = await rowsOf(client, statement);
    const isAsSaid =
      expected === undefined
        ? !rows.some((row) => row.startsWith('ERROR') || NOT_YET[mode]?.(row))
        : rows.join() === expected.join();
    if (!isAsSaid) faults.push(`${statement}\nprints ${rows.join('\n')}`);
    const [, called] = /^(?:select|call) (?:filestore\.)?(\w+)\(/.exec(statement) ?? [];
    if (called !== undefined && rows[0] !== undefined) printed.set(called, rows[0]);
  }
  return faults;
}

/** As psql prints them: JSON in one line. */
async function rowsOf(client: pg.Client, statement: string): Promise<readonly string[]> {
  try {
    const { rows } = await client.query<unknown[]>({ text: statement, rowMode: 'array' });
    return rows.map((row) =>
      row.map((value) => (typeof value === 'object' ? JSON.stringify(value) : String(value))).join(' | '),
    );
  } catch (error) {
    const { code, message } = error as { readonly code: string; readonly message: string };
    return [`ERROR ${code}: ${message}`];
  }
}

/** The document's move has the number of the first one. */
function withReceipts(text: string, printed: Printed): string {
  const [, move = '1099511627777'] = /"move":(\d+)/.exec(printed.get('start_move') ?? '') ?? [];
  const [, slot = ''] = /"slot":"(\w+)"/.exec(printed.get('start_move') ?? '') ?? [];
  return text
    .replaceAll('filestore_move_1099511627777_16384', slot)
    .replaceAll('1099511627777', move)
    .replaceAll(/<(\w+)>/g, (_, name: string) => (printed.get(name) ?? '').replaceAll("'", "''"));
}

/** The recipe names a server that does not exist. */
function withAddress(text: string, { source }: Pick<TwoServers, ServerName>): string {
  const { host, port } = source.server;
  return text
    .replaceAll('host=source.example port=5432', `host=${host} port=${port}`)
    .replaceAll("host 'source.example', port '5432'", `host '${host}', port '${port}'`);
}
