import type { Flags } from './arguments.ts';
import type { CheckDocument } from './documents.ts';
import { DONE, FAILED } from './exit-codes.ts';
import type { Output } from './output.ts';
import { signalsAsAbort } from './signals.ts';

export async function start(output: Output): Promise<number> {
  const { openEmbedded } = await import('../dev/embedded/embedded.ts');
  const embedded = await openEmbedded();
  output.say(`Embedded Postgres: data in ${embedded.folder}`);
  output.say(`URL: ${embedded.url}`);
  output.say('For graphile-migrate in another terminal:');
  output.say(`  export DATABASE_URL='${embedded.url}'`);
  output.say(`  export SHADOW_DATABASE_URL='${embedded.shadowUrl}'`);
  output.say(`  export ROOT_DATABASE_URL='${embedded.rootUrl}'`);
  if (!embedded.startedHere) {
    output.say('Another command runs it already, and it ends with that command.');
    await embedded.close();
    return DONE;
  }
  output.say('Ctrl-C stops it.');
  // Pending promises alone do not keep Node running.
  const alive = setInterval(() => undefined, 60_000);
  const { signal, release } = signalsAsAbort();
  const asked = new Promise<'asked'>((resolve) => {
    signal.addEventListener('abort', () => resolve('asked'));
  });
  const reason = await Promise.race([embedded.ended.then(() => 'ended' as const), asked]);
  clearInterval(alive);
  release();
  if (reason === 'ended') {
    output.warn(`The server ended by itself; its log is in ${embedded.folder}.`);
    return FAILED;
  }
  await embedded.close();
  output.say('Stopped.');
  return DONE;
}

export async function check(output: Output, flags: Flags): Promise<number> {
  const { checkMigrations } = await import('../dev/check/run.ts');
  const { describeReport } = await import('../dev/check/describe.ts');
  const report = await untilSignal((signal) => checkMigrations({ current: flags.current, signal }));
  for (const line of describeReport(report)) output.say(line);
  output.document({ command: 'check', ...report } satisfies CheckDocument);
  return report.ok ? DONE : FAILED;
}

export async function docs(output: Output): Promise<number> {
  const { writeGeneratedFiles } = await import('../dev/generated.ts');
  for (const file of await untilSignal(writeGeneratedFiles)) output.say(`Written: ${file}`);
  return DONE;
}

/** A signal ends the work in order: it has servers and folders of its own, which must not be left behind. */
async function untilSignal<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const { signal, release } = signalsAsAbort();
  try {
    return await work(signal);
  } finally {
    release();
  }
}
