import type { Client } from 'pg';
import type { Model } from './plain-model.ts';

/** A command in the journal. */
export interface Command {
  readonly id: number;
  readonly name: string;
  readonly mountId: number | null;
  status: 'running' | 'succeeded' | 'canceled';
  /** The primary, secondary and affected nodes. */
  readonly nodes: number[];
}

export const COMMANDS = ['write', 'move', 'scan'] as const;

/** Returns the differences between the lists of the journal and the model. Each list is read in small pages. */
export async function journalDifferences(sql: Client, { commands, mounts, nodes }: Model): Promise<string[]> {
  const newest = [...commands].reverse();
  const found: string[] = [];
  const compare = async (call: string, argument: unknown, chosen: (command: Command) => boolean) => {
    const listed = await allPages(sql, call, argument);
    const expected = newest.filter(chosen).map(({ id }) => id);
    if (`${listed}` !== `${expected}`) found.push(`${call} of ${argument}: ${listed} instead of ${expected}`);
  };
  await compare('list_commands(page_size => $3, before_id => $2, command => $1)', null, () => true);
  for (const name of COMMANDS) {
    await compare(
      'list_commands(command => $1, before_id => $2, page_size => $3)',
      name,
      (c) => c.name === name,
    );
  }
  for (const { id } of mounts) {
    await compare('list_commands($1, before_id => $2, page_size => $3)', id, (c) => c.mountId === id);
  }
  for (const status of ['running', 'succeeded', 'canceled'] as const) {
    await compare(
      'list_commands(status => $1, before_id => $2, page_size => $3)',
      status,
      (c) => c.status === status,
    );
  }
  for (const id of nodes.keys()) await compare('node_commands($1, $2, $3)', id, (c) => c.nodes.includes(id));
  return found;
}

const PAGE = 7;

async function allPages(sql: Client, call: string, argument: unknown): Promise<readonly number[]> {
  const ids: number[] = [];
  for (;;) {
    const { rows } = await sql.query(`select id from filestore.${call}`, [
      argument,
      ids.at(-1) ?? null,
      PAGE,
    ]);
    ids.push(...rows.map(({ id }) => Number(id)));
    if (rows.length < PAGE) return ids;
  }
}
