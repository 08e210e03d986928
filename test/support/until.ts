import { setTimeout as delay } from 'node:timers/promises';

/** Asks again and again until there is an answer other than undefined or false; the test's timeout is the limit. */
export async function until<T>(
  ask: () => Promise<T | undefined | false> | T | undefined | false,
): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    await delay(10);
  }
}
