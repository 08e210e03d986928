// Both functions leave string literals and other quoted names unchanged.

/**
 * Servers quote a name that is a keyword, and keywords depend on the version: `json_object` is one from
 * PostgreSQL 16 on.
 */
export function withoutNeedlessQuotes(text: string): string {
  const tokens = /'(?:[^']|'')*'|"([a-z_][a-z0-9_$]*)"|"(?:[^"]|"")*"/g;
  return text.replace(tokens, (token, name?: string) => name ?? token);
}

/** Servers break an expression into lines. */
export function inOneLine(text: string): string {
  const tokens = /'(?:[^']|'')*'|"(?:[^"]|"")*"|(\s*\n\s*)/g;
  return text.replace(tokens, (token, lineBreak?: string) => (lineBreak === undefined ? token : ' '));
}
