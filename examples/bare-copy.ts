import type { Connection, PoolClient } from 'pg';
import type { Entry } from './walk.ts';

/**
 * Seconds that it takes to copy the files' rows into a table without key, check, trigger or index: the floor
 * that the server sets. The table is gone with the transaction, which is rolled back.
 */
export async function timeBareCopy(client: PoolClient, files: readonly Entry[]): Promise<number> {
  const lines = files.map(
    ({ parentPath, name, size, modified }) =>
      `${[escapeText(parentPath), escapeText(name), 'file', size, modified.toISOString()].join('\t')}\n`,
  );
  await client.query('begin');
  // Not a temporary table: that would not be written to the log, and ours is.
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

/** As COPY's text format wants it (PostgreSQL manual, COPY, "Text Format"). */
function escapeText(text: string): string {
  return text.replaceAll('\\', '\\\\');
}

/** COPY … FROM STDIN by pg's interface for queries of one's own. */
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

/** What pg's connection has for COPY, and its types leave out. */
interface CopyConnection {
  sendCopyFromChunk(chunk: Buffer): void;
  endCopyFrom(): void;
}
