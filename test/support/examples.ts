import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.ts';

export interface Example {
  /** The heading above it. */
  readonly section: string;
  readonly statement: string;
  /** One line a row, columns separated by " | "; undefined when the document says nothing about it. */
  readonly expected: readonly string[] | undefined;
}

/** Anything that runs a statement and gives rows as arrays, as pg's Client does. */
export interface ArrayClient {
  query(query: {
    readonly text: string;
    readonly rowMode: 'array';
  }): Promise<{ readonly rows: readonly unknown[][] }>;
}

/** The statements in a document's SQL blocks; a statement ends with a line's ";", and comment lines after it are its rows. */
export function examplesOf(document: string): readonly Example[] {
  const text = readFileSync(join(PACKAGE_ROOT, document), 'utf8');
  let section = '';
  return [...text.matchAll(/^(?:#+ (.+)|```sql\n([\s\S]*?)^```)$/gm)].flatMap(([, heading, block]) => {
    if (heading !== undefined) section = heading;
    return [...(block ?? '').matchAll(/([\s\S]+?;)\n((?:-- ?.*\n)*)/g)].map(
      ([, statement = '', rows = '']) => ({
        section,
        statement: statement.trim(),
        expected:
          rows === ''
            ? undefined
            : rows
                .trimEnd()
                .split('\n')
                .map((row) => row.slice(3).trimEnd()),
      }),
    );
  });
}

/** What a statement returns, a line a row; an error is a line that begins with "ERROR". */
export async function outcomeOf(client: ArrayClient, statement: string): Promise<readonly string[]> {
  try {
    const { rows } = await client.query({ text: statement, rowMode: 'array' });
    return rows.map((row) => row.join(' | ').trimEnd());
  } catch (error) {
    const { code, message } = error as { readonly code: string; readonly message: string };
    return [`ERROR ${code}: ${message}`];
  }
}
