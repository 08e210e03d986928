import { setTimeout as delay } from 'node:timers/promises';

/** Repeats a call until it returns anything but undefined or false. The test's timeout is the limit. */
export async function until<T>(
  ask: () => Promise<T | undefined | false> | T | undefined | false,
): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    await delay(10);
  }
}
