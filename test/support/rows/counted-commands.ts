import { type CommandOptions, runCommand } from '../../../src/index.ts';
import type { TestDatabase } from '../databases/test-database.ts';
import { one } from './nodes.ts';

/** The file whose size counts how often the work of commands took effect. */
export interface Counter {
  readonly mountId: string;
  readonly fileId: string;
}

/** The statements of `addOne`, by a part of their messages. */
export const COMMAND_STEPS = {
  'the begin of the command': 'begin_command',
  'the begin of the transaction': 'begin isolation',
  'the begin of the work': 'begin_work',
  'the work': 'update filestore.nodes',
  'the end of the command': '"result" =>',
  'the commit': 'commit\0',
} as const;

/** Runs a command that adds one byte to the counter. */
export const addOne = ({ mountId, fileId }: Counter, idempotencyKey?: string, options?: CommandOptions) =>
  runCommand(
    { command: 'add', mountId, principal: 'ada', idempotencyKey, parameters: { fileId } },
    async (client) => {
      const { rows } = await client.query<{ readonly size: string }>(
        'update filestore.nodes set size_bytes = size_bytes + 1 where id = $1 returning size_bytes::text as size',
        [fileId],
      );
      return { result: { size: rows[0]?.size ?? '' }, primaryNodeId: fileId };
    },
    options,
  );

/** The size of the counter. */
export const countOf = async (database: TestDatabase, { fileId }: Counter): Promise<number> =>
  Number((await one(database, 'select size_bytes from filestore.nodes where id = $1', [fileId])).size_bytes);

/** How many entries have each status. */
export async function statusesOf(database: TestDatabase): Promise<Readonly<Record<string, number>>> {
  const rows = await database.query<{ status: string; entries: number }>(
    'select status, count(*)::integer as entries from filestore.journal_entries group by status',
  );
  return Object.fromEntries(rows.map(({ status, entries }) => [status, entries]));
}

export const expireAll = (database: TestDatabase) =>
  database.query("select filestore.expire_commands(older_than => '0')");
