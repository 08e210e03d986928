import type { Connection, PoolClient } from 'pg';
import type { Entry } from './walk.ts';

/**
 * The seconds that a copy of the files' rows into a table without keys, checks, triggers and indexes takes: the server's
 * lower limit. The transaction with the table is rolled back.
 */
export async function timeBareCopy(client: PoolClient, files: readonly Entry[]): Promise<number> {
  const lines = files.map(
    ({ parentPath, name, size, modified }) =>
      `${[escapeText(parentPath), escapeText(name), 'file', size, modified.toISOString()].join('\t')}\n`,
  );
  await client.query('begin');
  // Not a temporary table, since that would not be written to the WAL.
  await client.query(
    `create table public.bare_copy (
       parent_path text, name text, kind text, size_bytes bigint, last_modified_at timestamptz
     )`,
  );
  const startedAt = performance.now();
  await copyIn(client, 'copy public.bare_copy from stdin', Buffer.from(lines.join('')));
  const seconds = (performance.now() - startedAt) / 1000;
  await client.query('rollback');
  return seconds;
}

/** Escapes a value for COPY's text format (PostgreSQL manual, COPY, "Text Format"). */
function escapeText(text: string): string {
  return text.replaceAll('\\', '\\\\');
}

/** COPY … FROM STDIN, with pg's interface for custom queries. */
function copyIn(client: PoolClient, statement: string, data: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    client.query({
      submit(connection: Connection) {
        connection.query(statement);
      },
      handleCopyInResponse(connection: CopyConnection) {
        connection.sendCopyFromChunk(data);
        connection.endCopyFrom();
      },
      handleError: reject,
      handleCommandComplete() {},
      handleReadyForQuery: () => resolve(),
    } as never);
  });
}

/** The members of pg's connection for COPY, which its types lack. */
interface CopyConnection {
  sendCopyFromChunk(chunk: Buffer): void;
  endCopyFrom(): void;
}
