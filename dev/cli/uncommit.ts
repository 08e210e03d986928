import { defineCommand } from '../../src/cli/define-command.ts';
import { DONE } from '../../src/cli/exit-codes.ts';
import { withWorkflow } from './with-workflow.ts';

export const uncommit = defineCommand({
  name: 'uncommit',
  summary: 'move the last committed migration back into current.sql',
  options: {
    migration: {
      type: 'string',
      value: '<file>',
      help: 'which one, if a merge brought another last one',
    },
  },
  async run(output, { migration }) {
    return withWorkflow(output, {}, async (context) => {
      const workflow = await import('../workflow/uncommit-last.ts');
      const { filename, restored, changed } = await workflow.uncommitLast(context, migration);
      output.say(
        `${output.paint.good('Uncommitted')} ${filename}: it is in migrations/current.sql again, and its objects are in the database.`,
      );
      for (const path of restored) {
        output.say(`migrations/fixtures/${path} was missing: it has the committed text again.`);
      }
      for (const path of changed) {
        output.say(
          `migrations/fixtures/${path} differs from the committed text: a commit takes the file as it is.`,
        );
      }
      output.say('Next: commit it again, or npm run db:docs, since the generated files still have it.');
      return DONE;
    });
  },
});
