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
  query(query: ArrayStatement): Promise<{ readonly rows: readonly unknown[][] }>;
}

export interface ArrayStatement {
  readonly text: string;
  readonly values?: unknown[];
  readonly name?: string;
  readonly types?: ValueParsers;
  readonly rowMode: 'array';
}

export interface ValueParsers {
  getTypeParser(type: number): (value: string) => unknown;
}

/**
 * The statements in a document's SQL blocks. A statement ends with ";" at the end of a line. Comment lines after it are
 * its rows.
 */
export function examplesOf(document: string, folder: string = PACKAGE_ROOT): readonly Example[] {
  const text = readFileSync(join(folder, document), 'utf8');
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

const BOOLEAN = 16;

/** Values as the server sends them, and not as dates or JSON values of JavaScript; but booleans as `true` and `false`. */
export const AS_TEXT: ValueParsers = {
  getTypeParser: (type) => (type === BOOLEAN ? (value) => value === 't' : String),
};

/** The rows that a statement returns, one per line. An error is a line that begins with "ERROR". */
export async function outcomeOf(
  client: ArrayClient,
  statement: string | Omit<ArrayStatement, 'rowMode'>,
): Promise<readonly string[]> {
  const asked = typeof statement === 'string' ? { text: statement } : statement;
  try {
    const { rows } = await client.query({ ...asked, rowMode: 'array' });
    return rows.map((row) => row.join(' | ').trimEnd());
  } catch (error) {
    const { code, message } = error as { readonly code: string; readonly message: string };
    return [`ERROR ${code}: ${message}`];
  }
}

/** The values that the statements of a document name, such as `:mount`. */
export class ExampleValues {
  readonly #values: Map<string, string>;

  constructor(known: Iterable<readonly [name: string, value: string]> = []) {
    this.#values = new Map(known);
  }

  /** Replaces the names in a text by their values. */
  bind(text: string, write: (value: string, name: string) => string): string {
    return text.replaceAll(/(?<!:):([a-z_]+)\b/g, (_, name: string) => {
      const value = this.#values.get(name);
      if (value === undefined) throw new Error(`:${name} is used before a statement returns it`);
      return write(value, name);
    });
  }

  /** Stores the values of a row that the document names. @returns the expected row, with the values of all names. */
  learn(row: string, expected: string): string {
    const cells = row.split(' | ');
    for (const [position, cell] of expected.split(' | ').entries()) {
      const name = /^:([a-z_]+)$/.exec(cell)?.[1];
      if (name !== undefined && !this.#values.has(name)) this.#values.set(name, cells[position] ?? '');
    }
    return this.bind(expected, String);
  }

  copy(): ExampleValues {
    return new ExampleValues(this.#values);
  }
}
