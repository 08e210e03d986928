/** The source of a view's column: a table's column, unchanged or cast. */
export interface ColumnOrigin {
  readonly table: string;
  readonly column: string;
  /** The table is on the nullable side of an outer join. */
  readonly outer: boolean;
}

interface OutputColumn {
  readonly name: string;
  readonly origin: ColumnOrigin | undefined;
}

const UNION = /\bUNION(?: ALL)?\b/g;
const BRANCH =
  /\bSELECT (?<columns>.*?)\bFROM (?<tables>.*?)(?=\b(?:WHERE|GROUP BY|HAVING|ORDER BY|LIMIT|OFFSET)\b|$)/s;
const TABLE = /(LEFT JOIN )?\(*filestore\.(\w+)(?: (?!JOIN\b|LEFT\b|CROSS\b|ON\b)(\w+))?/g;
const COLUMN = /^\(?(?:(\w+)\.)?(\w+)\)?(?:::[\w ]+?(?:\[\])?)?(?: AS (\w+))?$/;
/** After these, columns may become null, or may not be those that the text names. */
const BEYOND = /\b(?:RIGHT JOIN|FULL JOIN|LEFT JOIN \(|GROUPING SETS|ROLLUP|CUBE|INTERSECT|EXCEPT|DISTINCT)/;

/**
 * Finds the source columns of a view's columns in its query, as printed by the server. The catalog has no such
 * information, and no `not null` of a view. The names of tables in such a text are unique, subqueries included.
 * @returns the origins of each column that comes from a table in every branch of a union. Unknown expressions are left
 * out.
 */
export function originsOfColumns(query: string): ReadonlyMap<string, readonly ColumnOrigin[]> {
  if (BEYOND.test(query)) return new Map();
  const text = query.replace(/;\s*$/, '');
  const branches = partsOf(text, UNION).map(columnsOfBranch);
  // The first branch gives the names; the columns of all branches are in the same order.
  const columns = (branches[0] ?? []).map(({ name }, position) => {
    const origins = branches.map((branch) => branch[position]?.origin);
    return [name, origins.filter((origin) => origin !== undefined)] as const;
  });
  return new Map(columns.filter(([, origins]) => origins.length === branches.length));
}

/**
 * The relation whose column of the same name a view's column shows; the first one of a union. Undefined for an expression,
 * or a column that has another name in a branch of a union.
 */
export function sourceOfColumn(query: string, column: string): string | undefined {
  const origins = originsOfColumns(query).get(column) ?? [];
  return origins.every((origin) => origin.column === column) ? origins[0]?.table : undefined;
}

function columnsOfBranch(branch: string): readonly OutputColumn[] {
  const groups = BRANCH.exec(outermost(branch));
  if (groups === null) return [];
  const [whole, columns = '', tables = ''] = groups;
  const start = groups.index + 'SELECT '.length;
  const from = groups.index + whole.length - tables.length;
  const sources = new Map<string, Omit<ColumnOrigin, 'column'>>();
  for (const [, left, table = '', alias = table] of branch
    .slice(from, from + tables.length)
    .matchAll(TABLE)) {
    sources.set(alias, { table, outer: left !== undefined });
  }
  // With qualifiers up to 15; later without them if there is only one table.
  const only = sources.size === 1 ? ([...sources.keys()][0] ?? '') : '';
  return partsOf(branch.slice(start, start + columns.length), /,/g).map((part) => {
    const [, alias = only, column = '', name = column] = COLUMN.exec(part.trim()) ?? [];
    const source = sources.get(alias);
    return { name, origin: source && column !== '' ? { ...source, column } : undefined };
  });
}

/** Splits a text at separators outside of parentheses and quotes. */
function partsOf(text: string, separator: RegExp): readonly string[] {
  const parts: string[] = [];
  let start = 0;
  for (const match of outermost(text).matchAll(separator)) {
    parts.push(text.slice(start, match.index));
    start = match.index + match[0].length;
  }
  return [...parts, text.slice(start)];
}

/** The text with a space for each character in parentheses or quotes. */
function outermost(text: string): string {
  let depth = 0;
  return text.replace(/'(?:[^']|'')*'|"(?:[^"]|"")*"|[\s\S]/g, (token) => {
    if (token === '(') depth += 1;
    const masked = depth > 0 || token.length > 1 ? ' '.repeat(token.length) : token;
    if (token === ')') depth -= 1;
    return masked;
  });
}
