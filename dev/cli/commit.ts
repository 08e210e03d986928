import { defineCommand } from '../../src/cli/define-command.ts';
import { DONE } from '../../src/cli/exit-codes.ts';
import { seconds } from '../../src/text.ts';
import { failWith } from './render-failure.ts';
import { renderLeftovers } from './render-leftovers.ts';
import { withWorkflow, YES_ERASE_OPTION } from './with-workflow.ts';

export const commit = defineCommand({
  name: 'commit',
  summary: 'turn current.sql into a committed migration, after a test on the shadow database',
  options: {
    message: {
      type: 'string',
      short: 'm',
      value: '<text>',
      help: 'what the migration does; also names its file',
    },
    'yes-erase': YES_ERASE_OPTION,
  },
  async run(output, { message, 'yes-erase': yesErase }) {
    return withWorkflow(output, {}, async (context) => {
      const { commitCurrent } = await import('../workflow/commit-current.ts');
      const result = await commitCurrent(context, { message, yesErase });
      if (result.type === 'failed') return failWith(output, result.failure, 'Nothing was committed.');
      const { filename, hash, leftovers, currentKept, durationMs } = result;
      output.say(
        `${output.paint.good('Committed')} migrations/committed/${filename} (${hash}, ${seconds(durationMs)})`,
      );
      if (currentKept) {
        output.warn(
          'migrations/current.sql was changed during the command, and was kept: remove the committed part from it.',
        );
      }
      if (leftovers.type === 'known') renderLeftovers(output, context, leftovers.differences);
      else if (leftovers.type === 'other branch')
        output.warn(`The development database did not get it. ${leftovers.reason}`);
      else output.warn(`Could not check the development database for leftovers. ${leftovers.reason}`);
      output.say('Next: npm run db:docs, then npm run db:check.');
      return DONE;
    });
  },
});
