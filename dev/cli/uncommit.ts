import { defineCommand } from '../../src/cli/define-command.ts';
import { DONE } from '../../src/cli/exit-codes.ts';
import { seconds } from '../../src/text.ts';
import { failWith } from './render-failure.ts';
import { withWorkflow, YES_ERASE_OPTION } from './with-workflow.ts';

export const uncommit = defineCommand({
  name: 'uncommit',
  summary: 'move the last committed migration back into current.sql',
  options: { 'yes-erase': YES_ERASE_OPTION },
  async run(output, { 'yes-erase': yesErase }) {
    return withWorkflow(output, {}, async (context) => {
      const { uncommitLast } = await import('../workflow/uncommit-last.ts');
      const result = await uncommitLast(context, { yesErase });
      if (result.type === 'failed') return failWith(output, result.failure, result.consequence);
      output.say(
        `${output.paint.good('Uncommitted')} ${result.filename}: it is in migrations/current.sql again (${seconds(result.durationMs)})`,
      );
      if (result.currentKept) {
        output.warn('migrations/current.sql was changed during the command; your change is at its end.');
      }
      output.say('Next: commit it again, or npm run db:docs, since the generated files still have it.');
      return DONE;
    });
  },
});
