import { FAILED } from '../../src/cli/exit-codes.ts';
import type { Output } from '../../src/cli/output.ts';
import type { Paint } from '../../src/cli/paint.ts';
import type { FailurePlace, SqlFailure } from '../workflow/explain-failure.ts';

/** Renders a failure of SQL like a compiler error: the place, the server's message, the statement, and what to do. */
export function renderFailure(failure: SqlFailure, paint: Paint): string {
  const { place, message, code, detail, hint, advice, where, database } = failure;
  const sqlState = code === null ? '' : ` (SQLSTATE ${code})`;
  const shadow = database === 'shadow' ? ', on the shadow database' : '';
  const head = place === null ? '' : `${describePlace(place)}: `;
  return [
    `${paint.bad('FAILED')}  ${head}${message}${sqlState}${shadow}`,
    ...renderStatement(failure, paint),
    ...field('Detail', detail),
    ...field('Hint', hint),
    ...field('At', where),
    ...field('Advice', advice),
  ].join('\n');
}

function describePlace({ file, line, column }: FailurePlace): string {
  return [file, line, ...(column === null ? [] : [column])].join(':');
}

function renderStatement({ statement, place }: SqlFailure, paint: Paint): readonly string[] {
  const width = Math.max(0, ...statement.map(({ line }) => String(line).length));
  return statement.flatMap(({ line, text, here }) => {
    const gutter = `  ${String(line).padStart(width)} | `;
    const shown = `${paint.faint(gutter)}${text}`;
    if (!here || place?.column == null) return [shown];
    // Tabs stay tabs, so that the mark is below its character.
    const indent = text.slice(0, place.column - 1).replace(/[^\t]/g, ' ');
    return [shown, `${paint.faint(`  ${' '.repeat(width)} | `)}${indent}${paint.bad('^')}`];
  });
}

function field(name: string, value: string | null): readonly string[] {
  return value === null ? [] : [`  ${name}: ${value}`];
}

/** Prints the failure and its consequence, and returns the exit code of a failed command. */
export function failWith(output: Output, failure: SqlFailure, consequence: string): number {
  output.warn(renderFailure(failure, output.paint));
  output.warn(`  ${consequence}`);
  return FAILED;
}
