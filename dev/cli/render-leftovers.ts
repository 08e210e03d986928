import type { Output } from '../../src/cli/output.ts';
import { describeConnection } from '../../src/settings/database.ts';
import { capitalized } from '../../src/text.ts';
import type { WorkflowContext } from '../workflow/databases.ts';

/** Maximum number of shown differences: a database of another branch can have hundreds. */
const MOST_LEFTOVERS = 10;

/** Objects that do not come from the files. */
export function renderLeftovers(
  output: Output,
  { databases }: WorkflowContext,
  leftovers: readonly string[],
): void {
  if (leftovers.length === 0) return;
  const more = leftovers.length - MOST_LEFTOVERS;
  output.warn(
    [
      `${output.paint.odd('DRIFT')}  ${capitalized(describeConnection(databases.main))} differs from the committed migrations:`,
      ...leftovers.slice(0, MOST_LEFTOVERS).map((line) => `  ${line}`),
      ...(more > 0 ? [`  and ${more} more`] : []),
      '  An earlier save or another branch created this. Undo it by hand, or recreate the database: npm run db:reset',
    ].join('\n'),
  );
}
