import type { Embedded, EmbeddedOptions } from '../dev/embedded/embedded.ts';
import type { WorkflowContext } from '../dev/workflow/context.ts';
import type { WorkflowDatabases } from '../dev/workflow/databases.ts';
import { EmbeddedPostgresError, SettingsError } from '../errors.ts';
import { openEmbeddedInstead } from './open-embedded.ts';
import type { Output } from './output.ts';
import { signalsAsAbort } from './signals.ts';

/** The only ones that these commands read, for they are graphile-migrate's. */
const VARIABLES = 'DATABASE_URL, SHADOW_DATABASE_URL and ROOT_DATABASE_URL';

type Work = (context: WorkflowContext, embedded: Embedded | undefined) => Promise<number>;

/** Runs `work` on the three databases of the environment, or in their absence on those of the embedded Postgres. */
export async function withWorkflow(output: Output, options: EmbeddedOptions, work: Work): Promise<number> {
  const { configuredDatabases, embeddedDatabases } = await import('../dev/workflow/databases.ts');
  const { signal, release } = signalsAsAbort();
  const contextOf = (databases: WorkflowDatabases, stop: AbortSignal): WorkflowContext => ({
    databases,
    signal: stop,
    onStep: (step) => output.busy(step),
  });
  try {
    const configured = configuredDatabases();
    if (configured !== undefined) return await work(contextOf(configured, signal), undefined);
    const embedded = await openEmbeddedInstead(
      output,
      { because: `${VARIABLES} are not set`, refusal: missingUrlsError },
      options,
    );
    const gone = new AbortController();
    void embedded.ended.then(() => gone.abort());
    const context = contextOf(embeddedDatabases(embedded), AbortSignal.any([signal, gone.signal]));
    try {
      const exitCode = await work(context, embedded);
      if (gone.signal.aborted) throw goneError(embedded);
      return exitCode;
    } catch (error) {
      // Whatever else went wrong is a consequence.
      throw gone.signal.aborted ? goneError(embedded) : error;
    } finally {
      await embedded.close();
    }
  } finally {
    release();
  }
}

function missingUrlsError(reason: string): SettingsError {
  return new SettingsError(
    'DATABASE_URL',
    `No databases to change the schema in: ${reason} Set ${VARIABLES}.`,
  );
}

function goneError({ startedHere, folder }: Embedded): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    startedHere
      ? `The embedded Postgres ended by itself; its log is in ${folder}.`
      : 'The embedded Postgres was stopped by the command that ran it. Run this again to start it.',
  );
}
