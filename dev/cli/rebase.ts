import { defineCommand } from '../../src/cli/define-command.ts';
import { DONE } from '../../src/cli/exit-codes.ts';
import { describeConnection } from '../../src/settings/settings.ts';
import { capitalized, seconds } from '../../src/text.ts';
import { failWith } from './render-failure.ts';
import { withWorkflow } from './with-workflow.ts';

export const rebase = defineCommand({
  name: 'rebase',
  summary: 'after a merge, renumber your migrations to follow those of the other branch',
  options: {
    onto: {
      type: 'string',
      value: '<ref>',
      help: 'the branch whose migrations keep their numbers; default: found by git',
    },
  },
  async run(output, { onto }) {
    return withWorkflow(output, {}, async (context) => {
      const { rebaseMigrations } = await import('../workflow/rebase-migrations.ts');
      const result = await rebaseMigrations(context, { onto });
      const { paint } = output;
      output.say(`Keeping the numbers of ${result.onto.name}: it is ${result.onto.why}.`);
      for (const { before, after } of result.renumbered) {
        output.say(`${paint.good('Renumbered')} ${before.filename} (${before.hash})`);
        output.say(`        to ${after.filename} (${after.hash})`);
      }
      for (const { fixture, own, other } of result.sharedFixtures) {
        output.warn(
          `${paint.odd('Look at')} fixtures/${fixture}: ${other} and ${own} both change it, and the later one wins. If it lacks the other branch's change, merge the file: npm run db:uncommit, then npm run db:commit.`,
        );
      }
      if (result.renumbered.length === 0) {
        output.say(
          `Nothing to renumber: your migrations follow those of ${result.onto.name}, or you have none.`,
        );
      }
      const { database } = result;
      const where = capitalized(describeConnection(context.databases.main));
      if (database.type === 'failed') {
        return failWith(
          output,
          database.failure,
          `The files are in order. ${where} lacks this migration and those after it: recreate it (npm run db:reset).`,
        );
      }
      if (database.type === 'untouched') output.warn(database.reason);
      else if (database.migrations.length === 0) output.say(`${where} has all migrations.`);
      else output.say(`${where}: applied ${database.migrations.join(', ')} (${seconds(result.durationMs)})`);
      if (result.renumbered.length > 0)
        output.say(
          'Next: npm run db:docs, then npm run db:check, then git add migrations schema src/sql README.md.',
        );
      return DONE;
    });
  },
});
