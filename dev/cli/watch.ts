import { defineCommand } from '../../src/cli/define-command.ts';
import { DONE, FAILED } from '../../src/cli/exit-codes.ts';
import type { Output } from '../../src/cli/output.ts';
import { describeConnection } from '../../src/settings/database.ts';
import type { ApplyResult } from '../workflow/apply-current.ts';
import type { WorkflowContext } from '../workflow/databases.ts';
import { renderFailure } from './render-failure.ts';
import { renderLeftovers } from './render-leftovers.ts';
import { withWorkflow } from './with-workflow.ts';

export const watch = defineCommand({
  name: 'watch',
  summary: 'apply migrations/current.sql to the development database, again at every save',
  options: { once: { type: 'boolean', help: 'apply it once' } },
  async run(output, flags) {
    return withWorkflow(output, { awaited: flags.once }, async (context, embedded) => {
      const workflow = await import('../workflow/watch-files.ts');
      if (flags.once) {
        const result = await workflow.applyOnce(context);
        renderResult(output, context, result);
        return result.type === 'failed' ? FAILED : DONE;
      }
      output.say(
        `Watching migrations/ for ${describeConnection(context.databases.main)}. Save to apply; Ctrl-C ends.`,
      );
      if (embedded !== undefined) output.say(`To open it: ${embedded.url}`);
      await workflow.watchFiles(context, (event) => {
        const time = output.paint.faint(new Date().toTimeString().slice(0, 8));
        const timed: Output = {
          ...output,
          say: (line) => output.say(`${time}  ${line}`),
          warn: (line) => output.warn(`${time}  ${line}`),
        };
        if (event.type === 'result') renderResult(timed, context, event.result);
        else timed.warn(`${output.paint.bad('REFUSED')}  ${event.error.message}`);
      });
      output.say('Stopped.');
      return DONE;
    });
  },
});

function renderResult(output: Output, context: WorkflowContext, result: ApplyResult): void {
  const { paint } = output;
  if (result.type === 'failed') {
    output.warn(renderFailure(result.failure, paint));
    return;
  }
  for (const filename of result.migrations) output.say(`${paint.good('Applied')} ${filename}`);
  const took = paint.faint(`(${Math.round(result.durationMs)} ms)`);
  if (result.blank) output.say(`${paint.good('Up to date')}: current.sql is empty ${took}`);
  else if (result.unchanged) output.say(`${paint.good('Unchanged')}: current.sql is already applied ${took}`);
  else output.say(`${paint.good('Applied')} current.sql ${took}`);
  for (const name of result.notIncluded) {
    output.say(
      `${paint.odd('Not applied')}: fixtures/${name} differs from the migrations, and current.sql does not include it. Add: --!include ${name}`,
    );
  }
  renderLeftovers(output, context, result.leftovers);
}
