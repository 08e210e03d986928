import { defineCommand, JSON_OPTION } from '../../src/cli/define-command.ts';
import { DONE, FAILED } from '../../src/cli/exit-codes.ts';
import { withSignal } from '../../src/cli/signals.ts';
import type { CheckReport } from '../check/check-migrations.ts';

/** What `check --json` prints: the result of each gate. */
export type CheckDocument = { readonly command: 'check' } & CheckReport;

export const check = defineCommand({
  name: 'check',
  summary: 'check that the migrations are ready to be merged',
  options: {
    json: JSON_OPTION,
    current: {
      type: 'boolean',
      help: 'check migrations/current.sql as the next migration, and print its locks',
    },
  },
  async run(output, { current }) {
    const { checkMigrations } = await import('../check/check-migrations.ts');
    const { describeReport } = await import('../check/describe-report.ts');
    const report = await withSignal((signal) => checkMigrations({ current, signal }));
    for (const line of describeReport(report)) output.say(line);
    output.document({ command: 'check', ...report } satisfies CheckDocument);
    return report.ok ? DONE : FAILED;
  },
});
