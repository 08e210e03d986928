import type { WorkflowContext } from '../dev/workflow/context.ts';
import type { SqlFailure } from '../dev/workflow/failure.ts';
import type { WatchEvent } from '../dev/workflow/watch.ts';
import { describeConnection } from '../settings.ts';
import { capitalized, count, seconds } from '../text.ts';
import type { Flags } from './arguments.ts';
import { DONE, FAILED } from './exit-codes.ts';
import type { Output } from './output.ts';
import { renderFailure } from './render-failure.ts';
import { withWorkflow } from './with-workflow.ts';

/** Differences are shown up to here; a database of another branch can have hundreds. */
const MOST_LEFTOVERS = 10;

export async function watch(output: Output, flags: Flags): Promise<number> {
  return withWorkflow(output, { awaited: flags.once }, async (context, embedded) => {
    const workflow = await import('../dev/workflow/watch.ts');
    if (flags.once) {
      const result = await workflow.applyOnce(context);
      renderResult(output, context, { type: 'result', result, sinceSaveMs: null, notIncluded: [] });
      return result.type === 'failed' ? FAILED : DONE;
    }
    output.say(
      `Watching migrations/ for ${describeConnection(context.databases.main)}. Save to apply; Ctrl-C ends.`,
    );
    if (embedded !== undefined) output.say(`To look into it: ${embedded.url}`);
    await workflow.watch(context, (event) => {
      const time = output.paint.faint(new Date().toTimeString().slice(0, 8));
      const timed: Output = {
        ...output,
        say: (line) => output.say(`${time}  ${line}`),
        warn: (line) => output.warn(`${time}  ${line}`),
      };
      if (event.type === 'result') renderResult(timed, context, event);
      else timed.warn(`${output.paint.bad('REFUSED')}  ${event.error.message}`);
    });
    output.say('Stopped.');
    return DONE;
  });
}

export async function commit(output: Output, { message, yesErase }: Flags): Promise<number> {
  return withWorkflow(output, {}, async (context) => {
    const { commitCurrent } = await import('../dev/workflow/commit.ts');
    const result = await commitCurrent(context, { message, yesErase });
    if (result.type === 'failed') return fail(output, result.failure, 'Nothing was committed.');
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
    else output.warn(`Whether the development database has more than that is not known. ${leftovers.reason}`);
    output.say('Next: npm run db:docs, then npm run db:check.');
    return DONE;
  });
}

export async function uncommit(output: Output, { yesErase }: Flags): Promise<number> {
  return withWorkflow(output, {}, async (context) => {
    const { uncommitLast } = await import('../dev/workflow/uncommit.ts');
    const result = await uncommitLast(context, { yesErase });
    if (result.type === 'failed') return fail(output, result.failure, result.consequence);
    output.say(
      `${output.paint.good('Uncommitted')} ${result.filename}: it is in migrations/current.sql again (${seconds(result.durationMs)})`,
    );
    if (result.currentKept) {
      output.warn('migrations/current.sql was written to meanwhile; what was saved stands at its end.');
    }
    output.say('Next: commit it again, or npm run db:docs, since the generated files still have it.');
    return DONE;
  });
}

export async function rebase(output: Output, { onto }: Flags): Promise<number> {
  return withWorkflow(output, {}, async (context) => {
    const { rebaseMigrations } = await import('../dev/workflow/rebase.ts');
    const result = await rebaseMigrations(context, { onto });
    const { paint } = output;
    output.say(`Keeping the numbers of ${result.onto.name}: it is ${result.onto.why}.`);
    for (const { from, to } of result.finished) {
      output.say(`${paint.good('Finished')} what an earlier run began: ${from} is ${to}`);
    }
    for (const { before, after } of result.renumbered) {
      output.say(`${paint.good('Renumbered')} ${before.filename} (${before.hash})`);
      output.say(`        to ${after.filename} (${after.hash})`);
    }
    for (const { fixture, own, other } of result.sharedFixtures) {
      output.warn(
        `${paint.odd('Look at')} fixtures/${fixture}: ${other} and ${own} both have it, and the later one wins. If it lacks what the other branch changed: npm run db:uncommit, then npm run db:commit.`,
      );
    }
    const files = [...result.finished, ...result.renumbered];
    if (files.length === 0) {
      output.say(
        `Nothing to renumber: your migrations follow those of ${result.onto.name}, or you have none.`,
      );
    }
    const { database } = result;
    const where = capitalized(describeConnection(context.databases.main));
    if (database.type === 'failed') {
      return fail(
        output,
        database.failure,
        `The files are in order. ${where} lacks this migration and those after it: recreate it (npm run db:reset).`,
      );
    }
    if (database.type === 'untouched') output.warn(database.reason);
    else if (database.migrations.length === 0) output.say(`${where} has them all.`);
    else output.say(`${where}: applied ${database.migrations.join(', ')} (${seconds(result.durationMs)})`);
    if (files.length > 0)
      output.say('Next: npm run db:docs, then npm run db:check, then git add migrations schema src/sql.');
    return DONE;
  });
}

export async function reset(output: Output, { yesErase }: Flags): Promise<number> {
  return withWorkflow(output, {}, async (context) => {
    const { resetDatabase } = await import('../dev/workflow/reset.ts');
    const what = describeConnection(context.databases.main);
    const onErase = (size: string | null) =>
      output.say(
        size === null
          ? `There is no ${what} yet: making it.`
          : `Erasing ${what}, with all that is in it (${size}).`,
      );
    const result = await resetDatabase(context, { yesErase, onErase });
    if (result.type === 'failed') {
      return fail(
        output,
        result.failure,
        'The database is not complete: mend the migration and run this again.',
      );
    }
    output.say(
      `${output.paint.good('Made anew')} with ${count(result.migrations, 'migration')} (${seconds(result.durationMs)}). What is in current.sql comes with the next save, or npm run db:watch.`,
    );
    return DONE;
  });
}

function fail(output: Output, failure: SqlFailure, consequence: string): number {
  output.warn(renderFailure(failure, output.paint));
  output.warn(`  ${consequence}`);
  return FAILED;
}

function renderResult(
  output: Output,
  context: WorkflowContext,
  { result, sinceSaveMs, notIncluded }: Extract<WatchEvent, { readonly type: 'result' }>,
): void {
  const { paint } = output;
  if (result.type === 'failed') {
    output.warn(renderFailure(result.failure, paint));
    return;
  }
  for (const filename of result.migrations) output.say(`${paint.good('Applied')} ${filename}`);
  const took = `${Math.round(result.durationMs)} ms`;
  const since = sinceSaveMs === null ? '' : `, ${seconds(sinceSaveMs)} after the save`;
  const times = paint.faint(`(${took}${since})`);
  if (result.blank) output.say(`${paint.good('Up to date')}: current.sql is empty ${times}`);
  else if (result.unchanged)
    output.say(`${paint.good('Unchanged')}: current.sql is applied already ${times}`);
  else output.say(`${paint.good('Applied')} current.sql ${times}`);
  for (const name of notIncluded) {
    output.say(
      `${paint.odd('Not applied')}: fixtures/${name} was saved, and current.sql does not pull it in. Write there: --!include ${name}`,
    );
  }
  renderLeftovers(output, context, result.leftovers);
}

/** Known to come from somewhere else than the files. */
function renderLeftovers(output: Output, { databases }: WorkflowContext, leftovers: readonly string[]): void {
  if (leftovers.length === 0) return;
  const more = leftovers.length - MOST_LEFTOVERS;
  output.warn(
    [
      `${output.paint.odd('DRIFT')}  ${capitalized(describeConnection(databases.main))} is not what the committed migrations make:`,
      ...leftovers.slice(0, MOST_LEFTOVERS).map((line) => `  ${line}`),
      ...(more > 0 ? [`  and ${more} more`] : []),
      '  An earlier save or another branch left it there. Take it back by hand, or erase all of it: npm run db:reset',
    ].join('\n'),
  );
}
