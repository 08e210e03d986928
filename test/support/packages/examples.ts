import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../../src/package-root.ts';

export interface Example {
  /** The heading above the statement. */
  readonly section: string;
  readonly statement: string;
  /** The expected rows, one per line, columns separated by " | "; undefined when the document shows none. */
  readonly expected: readonly string[] | undefined;
}

/** Runs a statement and returns rows as arrays, like pg's Client. */
export interface ArrayClient {
  query(query: {
    readonly text: string;
    readonly rowMode: 'array';
  }): Promise<{ readonly rows: readonly unknown[][] }>;
}

/**
 * The statements in a document's SQL blocks. A statement ends with ";" at the end of a line. Comment lines after it are
 * its rows.
 */
export function examplesOf(document: string): readonly Example[] {
  const text = readFileSync(join(PACKAGE_ROOT, document), 'utf8');
  let section = '';
  return [...text.matchAll(/^(?:#+ (.+)|```sql\n([\s\S]*?)^```)$/gm)].flatMap(([, heading, block]) => {
    if (heading !== undefined) section = heading;
    return statementsOf(block ?? '').map((example) => ({ section, ...example }));
  });
}

/** The statements of one SQL block. */
export function statementsOf(block: string): readonly Omit<Example, 'section'>[] {
  return [...block.matchAll(/([\s\S]+?;)\n((?:-- ?.*\n)*)/g)].map(([, statement = '', rows = '']) => ({
    statement: statement.trim(),
    expected:
      rows === ''
        ? undefined
        : rows
            .trimEnd()
            .split('\n')
            .map((row) => row.slice(3).trimEnd()),
  }));
}

/** The rows that a statement returns, one per line. An error is a line that begins with "ERROR". */
export async function outcomeOf(client: ArrayClient, statement: string): Promise<readonly string[]> {
  try {
    const { rows } = await client.query({ text: statement, rowMode: 'array' });
    return rows.map((row) => row.join(' | ').trimEnd());
  } catch (error) {
    const { code, message } = error as { readonly code: string; readonly message: string };
    return [`ERROR ${code}: ${message}`];
  }
}
