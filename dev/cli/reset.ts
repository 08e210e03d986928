import { defineCommand } from '../../src/cli/define-command.ts';
import { DONE } from '../../src/cli/exit-codes.ts';
import { describeConnection } from '../../src/settings/database.ts';
import { count, seconds } from '../../src/text.ts';
import { failWith } from './render-failure.ts';
import { withWorkflow, YES_ERASE_OPTION } from './with-workflow.ts';

export const reset = defineCommand({
  name: 'reset',
  summary: 'erase the development database and recreate it from the committed migrations',
  options: { 'yes-erase': YES_ERASE_OPTION },
  async run(output, { 'yes-erase': yesErase }) {
    return withWorkflow(output, {}, async (context) => {
      const { resetDatabase } = await import('../workflow/reset-database.ts');
      const what = describeConnection(context.databases.main);
      const onErase = (size: string | null) =>
        output.say(
          size === null
            ? `Creating ${what}, which does not exist yet.`
            : `Erasing ${what} with all its data (${size}).`,
        );
      const result = await resetDatabase(context, { yesErase, onErase });
      if (result.type === 'failed') {
        return failWith(
          output,
          result.failure,
          'The database is incomplete. Fix the migration and run this again.',
        );
      }
      output.say(
        `${output.paint.good('Recreated')} with ${count(result.migrations, 'migration')} (${seconds(result.durationMs)}). The next save under npm run db:watch applies current.sql.`,
      );
      return DONE;
    });
  },
});
