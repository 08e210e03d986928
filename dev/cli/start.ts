import { defineCommand } from '../../src/cli/define-command.ts';
import { DONE, FAILED } from '../../src/cli/exit-codes.ts';
import { withSignal } from '../../src/cli/signals.ts';

export const start = defineCommand({
  name: 'start',
  summary: 'run the embedded Postgres in the foreground and print its URLs',
  options: {},
  async run(output) {
    const { openEmbedded } = await import('../embedded/embedded.ts');
    const embedded = await openEmbedded();
    output.say(`Embedded Postgres: data in ${embedded.folder}`);
    output.say(`URL: ${embedded.url}`);
    output.say('For graphile-migrate in another terminal:');
    output.say(`  export DATABASE_URL='${embedded.url}'`);
    output.say(`  export SHADOW_DATABASE_URL='${embedded.shadowUrl}'`);
    output.say(`  export ROOT_DATABASE_URL='${embedded.rootUrl}'`);
    if (!embedded.startedHere) {
      output.say('Another command already runs it. It stops with that command.');
      await embedded.close();
      return DONE;
    }
    output.say('Ctrl-C stops it.');
    // Pending promises alone do not keep Node running.
    const alive = setInterval(() => undefined, 60_000);
    const reason = await withSignal((signal) => {
      const stopped = new Promise<'stopped'>((resolve) => {
        signal.addEventListener('abort', () => resolve('stopped'));
      });
      return Promise.race([embedded.ended.then(() => 'ended' as const), stopped]);
    });
    clearInterval(alive);
    if (reason === 'ended') {
      output.warn(`The server stopped unexpectedly; its log is in ${embedded.folder}.`);
      return FAILED;
    }
    await embedded.close();
    output.say('Stopped.');
    return DONE;
  },
});
