import { getPool } from '../src/index.ts';
import { recordEntries } from '../src/sql/index.ts';
import { Progress } from './progress.ts';
import { linesOf, Tally } from './tally.ts';
import { type LeftOut, type WalkOptions, walk } from './walk.ts';
import { count, plain } from './words.ts';

/** What the program prints about objects that are no entries. */
const LEFT_OUT: Readonly<Record<LeftOut, string>> = {
  special: 'special files, such as sockets and devices',
  device: 'what is below directories on other devices',
  encoding: 'names that are not UTF-8',
  length: 'paths that are too long',
};

/** Lists a folder, and records what it has. Throws when a part of it cannot be read. */
export async function recordFolder(
  scanId: string,
  folder: Pick<WalkOptions, 'root' | 'withBirthTimes' | 'signal'>,
): Promise<void> {
  const leftOut = new Tally<LeftOut, string>();
  const unreadable = new Tally<'', string>();
  const batches = walk({
    ...folder,
    onLeftOut: (reason, path) => leftOut.add(reason, plain(path)),
    onUnreadable: ({ message }) => unreadable.add('', plain(message)),
  });
  const startedAt = performance.now();
  const progress = new Progress();
  let entries = 0;
  try {
    for await (const batch of readAhead(batches)) {
      entries += await recordEntries(getPool(), { scanId, entries: batch });
      progress.show(`Listed ${count(entries, 'entry')} …`);
    }
  } finally {
    progress.end();
  }
  const missed = unreadable.get('');
  if (missed !== undefined) {
    throw new Error(
      `${count(missed.total, 'folder or file', 'folders or files')} cannot be read. The scan was canceled, and nothing was changed: what it did not see would count as missing. Make them readable, or scan a folder without them.\n${linesOf(missed)}`,
    );
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const rate = count(Math.round(entries / seconds), 'entry');
  console.log(`Listed ${count(entries, 'entry')} in ${seconds.toFixed(1)} s: ${rate} per second.`);
  for (const [reason, title] of Object.entries(LEFT_OUT)) {
    const group = leftOut.get(reason as LeftOut);
    if (group !== undefined) console.log(`Left out, ${title}: ${group.total}\n${linesOf(group)}`);
  }
}

/** Reads the next batch while the caller works on the one before. */
async function* readAhead<T>(batches: AsyncGenerator<T>): AsyncGenerator<T> {
  let next = batches.next();
  for (;;) {
    const { value, done } = await next;
    if (done) return;
    next = batches.next();
    // The failure is thrown when the caller asks for this batch.
    next.catch(() => undefined);
    yield value;
  }
}
