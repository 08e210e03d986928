import { collect, startCli } from '../support/command-line/command-line.ts';
import type { MoveOptions } from './measured-move.ts';
import type { MoveParts } from './move-by-hand.ts';
import { disturb } from './run-steps.ts';
import type { TwoServers } from './two-servers.ts';

/** A target that was killed may lack its last transactions, although it has confirmed them, or a slot of the copy. */
const BEGINS_AGAIN = /not the same on both servers|Run this with --back, and then again/;

/** Moves the mount `media` by the command. With kills, it is run again until it succeeds. */
export function moveByCommand(servers: TwoServers, { kills, onStep }: MoveOptions): MoveParts {
  let isDisturbed = false;
  const run = async (...options: readonly string[]) => {
    const startedAt = performance.now();
    const child = startCli(['move', 'media', '--to', 'TARGET_URL', ...options], {
      env: { FILESTORE_DATABASE_URL: servers.source.url, TARGET_URL: servers.target.url },
    });
    let disturbed: Promise<void> | undefined;
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      const ms = Math.round(performance.now() - startedAt);
      for (const line of text.trimEnd().split('\n')) onStep?.(`${String(ms).padStart(7)} ms  ${line}`);
      if (kills && !isDisturbed && text.includes('The target copies')) {
        // Until then it stands still, so that there is a copy to disturb.
        isDisturbed = true;
        child.kill('SIGSTOP');
        disturbed = disturb(servers).finally(() => child.kill('SIGCONT'));
      }
    });
    const result = await collect(child);
    await disturbed;
    return { ...result, wasDisturbed: disturbed !== undefined };
  };
  const toTheEnd = async (...options: readonly string[]) => {
    for (;;) {
      const { exitCode, output, wasDisturbed } = await run(...options);
      if (exitCode === 0) return;
      if (kills && BEGINS_AGAIN.test(output)) await toTheEnd('--back');
      else if (!wasDisturbed) throw new Error(output);
    }
  };
  return {
    attemptAndTakeBack: async () => {
      const child = startCli(['move', 'media', '--to', 'TARGET_URL'], {
        env: { FILESTORE_DATABASE_URL: servers.source.url, TARGET_URL: servers.target.url },
      });
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        if (text.includes('The target counts')) child.kill('SIGINT');
      });
      await collect(child);
      await toTheEnd('--back');
    },
    toTheEndOfWrites: () => toTheEnd('--keep'),
    end: () => toTheEnd(),
  };
}
