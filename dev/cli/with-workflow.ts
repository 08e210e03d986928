import type { CommandOption } from '../../src/cli/define-command.ts';
import type { Output } from '../../src/cli/output.ts';
import { withSignal } from '../../src/cli/signals.ts';
import { FilestoreError, SettingsError } from '../../src/errors.ts';
import type { Embedded, EmbeddedOptions } from '../embedded/embedded.ts';
import type { WorkflowContext, WorkflowDatabases } from '../workflow/databases.ts';
import { openEmbeddedInstead } from './open-embedded.ts';

/** These commands read only the variables of graphile-migrate. */
const VARIABLES = 'DATABASE_URL, SHADOW_DATABASE_URL and ROOT_DATABASE_URL';

type Work = (context: WorkflowContext, embedded: Embedded | undefined) => Promise<number>;

/** Runs `work` on the three databases of the environment, or on those of the embedded Postgres if none is set. */
export async function withWorkflow(output: Output, options: EmbeddedOptions, work: Work): Promise<number> {
  const { configuredDatabases, embeddedDatabases } = await import('../workflow/databases.ts');
  return withSignal(async (signal) => {
    const contextOf = (databases: WorkflowDatabases, stop: AbortSignal): WorkflowContext => ({
      databases,
      signal: stop,
      onStep: (step) => output.busy(step),
    });
    const configured = configuredDatabases();
    if (configured !== undefined) return work(contextOf(configured, signal), undefined);
    const embedded = await openEmbeddedInstead(
      output,
      { because: `${VARIABLES} are not set`, refusal: missingUrlsError },
      options,
    );
    const serverEnded = new AbortController();
    void embedded.ended.then(() => serverEnded.abort());
    const context = contextOf(embeddedDatabases(embedded), AbortSignal.any([signal, serverEnded.signal]));
    try {
      const exitCode = await work(context, embedded);
      if (serverEnded.signal.aborted) throw serverEndedError(embedded);
      return exitCode;
    } catch (error) {
      // Other errors are consequences of the stop.
      throw serverEnded.signal.aborted ? serverEndedError(embedded) : error;
    } finally {
      await embedded.close();
    }
  });
}

function missingUrlsError(reason: string): SettingsError {
  return new SettingsError(
    'DATABASE_URL',
    `No databases to change the schema in: ${reason} Set ${VARIABLES}.`,
  );
}

function serverEndedError({ startedHere, folder }: Embedded): FilestoreError {
  return new FilestoreError(
    'EMBEDDED_POSTGRES_FAILED',
    startedHere
      ? `The embedded Postgres stopped unexpectedly; its log is in ${folder}.`
      : 'The embedded Postgres was stopped by the command that ran it. Run this again to start it.',
  );
}

/** Names a database that may be erased. */
export const YES_ERASE_OPTION = {
  type: 'string',
  value: '<database>',
  help: 'erase this database, although it is on another machine',
  isShared: true,
} as const satisfies CommandOption;
