/** Where a view has a column from: a table's column, as it is or cast. */
export interface ColumnOrigin {
  readonly table: string;
  readonly column: string;
  /** The table stands on the far side of an outer join, which fills it with nulls. */
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
/** Nulls come out of these where there were none, or the columns are not what the text says. */
const BEYOND = /\b(?:RIGHT JOIN|FULL JOIN|LEFT JOIN \(|GROUPING SETS|ROLLUP|CUBE|INTERSECT|EXCEPT|DISTINCT)/;

/**
 * Reads from a view's query, as the server prints it, which columns of tables its columns are. The server itself does
 * not say, and knows no `not null` of a view. The names of tables in such a text are unique, subqueries included.
 * @returns for each column that is a table's in every branch of a union, its origins. What is not understood is left out.
 */
export function originsOfColumns(query: string): ReadonlyMap<string, readonly ColumnOrigin[]> {
  if (BEYOND.test(query)) return new Map();
  const text = query.replace(/;\s*$/, '');
  const branches = partsOf(text, UNION).map(columnsOfBranch);
  // The names are those of the first branch; the columns follow one another in all of them.
  const columns = (branches[0] ?? []).map(({ name }, position) => {
    const origins = branches.map((branch) => branch[position]?.origin);
    return [name, origins.filter((origin) => origin !== undefined)] as const;
  });
  return new Map(columns.filter(([, origins]) => origins.length === branches.length));
}

/**
 * The relation whose column of the same name a view's column is; undefined when it is an expression, or has another name
 * in some branch of a union. Of several relations, the first.
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
  // Up to 15 with qualifiers, later without when there is but one table.
  const only = sources.size === 1 ? ([...sources.keys()][0] ?? '') : '';
  return partsOf(branch.slice(start, start + columns.length), /,/g).map((part) => {
    const [, alias = only, column = '', name = column] = COLUMN.exec(part.trim()) ?? [];
    const source = sources.get(alias);
    return { name, origin: source && column !== '' ? { ...source, column } : undefined };
  });
}

/** Splits a text where the separator stands outside of parentheses and quotes. */
function partsOf(text: string, separator: RegExp): readonly string[] {
  const parts: string[] = [];
  let start = 0;
  for (const match of outermost(text).matchAll(separator)) {
    parts.push(text.slice(start, match.index));
    start = match.index + match[0].length;
  }
  return [...parts, text.slice(start)];
}

/** The text with a blank for each character that stands in parentheses or quotes. */
function outermost(text: string): string {
  let depth = 0;
  return text.replace(/'(?:[^']|'')*'|"(?:[^"]|"")*"|[\s\S]/g, (token) => {
    if (token === '(') depth += 1;
    const masked = depth > 0 || token.length > 1 ? ' '.repeat(token.length) : token;
    if (token === ')') depth -= 1;
    return masked;
  });
}
