import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { outcomeOf, statementsOf } from '../support/examples.ts';
import { until } from '../support/until.ts';
import { type ServerName, type TwoServers, withClient } from './two-servers.ts';

/** A block of SQL in a recipe of docs/scaling.md. Its first line says where it runs. */
export interface Block {
  readonly servers: readonly ServerName[];
  /** `repeated` until it prints what the document says; `waiting` until a later block has run. */
  readonly mode: 'once' | 'repeated' | 'waiting';
  readonly text: string;
}

/** The sections of docs/scaling.md whose blocks run on two servers. Each has a test. */
export const RECIPES: readonly string[] = [
  'Move a mount to another server',
  'Take it back',
  'Replicate the whole catalogue',
  'Read across servers',
];

const MODES: Readonly<Record<string, Block['mode']>> = {
  '': 'once',
  ', until it prints this': 'repeated',
  ', in another session': 'waiting',
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

function readBlock(block: string): Block {
  const [, where = '', how = '', text = ''] =
    /^-- on (the source|the target|both)(.*)\n([\s\S]*)$/.exec(block) ?? [];
  const mode = MODES[how];
  if (mode === undefined || text === '') throw new Error(`where this block runs is not said:\n${block}`);
  const servers: readonly ServerName[] =
    where === 'both' ? ['source', 'target'] : [where === 'the source' ? 'source' : 'target'];
  return { servers, mode, text };
}

/**
 * Runs a block on the servers that it names.
 * @throws {Error} When a statement fails, or prints something else than the document says.
 */
export async function runBlock(servers: TwoServers, block: Block): Promise<void> {
  for (const name of block.servers) {
    const { url } = servers[name];
    const run = () => withClient(url, (client) => faultsOf(client, withAddress(block.text, servers)));
    if (block.mode === 'repeated') {
      // The server may be down for a moment.
      await until(async () => (await run().catch((error) => [String(error)])).length === 0);
      continue;
    }
    const faults = await run();
    if (faults.length > 0) throw new Error(`on the ${name}: ${faults.join('\n')}`);
  }
}

async function faultsOf(client: Parameters<typeof outcomeOf>[0], text: string): Promise<readonly string[]> {
  const faults: string[] = [];
  for (const { statement, expected } of statementsOf(text)) {
    const rows = await outcomeOf(client, statement);
    const isAsSaid =
      expected === undefined ? !rows.some((row) => row.startsWith('ERROR')) : rows.join() === expected.join();
    if (!isAsSaid) faults.push(`${statement}\nprints ${rows.join('\n')}`);
  }
  return faults;
}

/** The recipe names a server that does not exist. */
function withAddress(text: string, { source }: TwoServers): string {
  const { host, port } = source.server;
  return text
    .replaceAll('host=source.example port=5432', `host=${host} port=${port}`)
    .replaceAll("host 'source.example', port '5432'", `host '${host}', port '${port}'`);
}
