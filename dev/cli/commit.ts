import { defineCommand } from '../../src/cli/define-command.ts';
import { DONE } from '../../src/cli/exit-codes.ts';
import { seconds } from '../../src/text.ts';
import { failWith } from './render-failure.ts';
import { renderLeftovers } from './render-leftovers.ts';
import { withWorkflow } from './with-workflow.ts';
import { YES_ERASE_OPTION } from './yes-erase.ts';

export const commit = defineCommand({
  name: 'commit',
  summary: 'make a committed migration of current.sql, tried on the shadow database',
  options: {
    message: { type: 'string', short: 'm', value: '<text>', help: 'what it does, which also names its file' },
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
          'migrations/current.sql was written to meanwhile, and was left as it is: take out what is committed.',
        );
      }
      if (leftovers.type === 'known') renderLeftovers(output, context, leftovers.differences);
      else
        output.warn(`Whether the development database has more than that is not known. ${leftovers.reason}`);
      output.say('Next: npm run db:docs, then npm run db:check.');
      return DONE;
    });
  },
});
