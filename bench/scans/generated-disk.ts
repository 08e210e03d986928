/** What a service lists of one object, as `record_entries` takes it. */
export interface Entry {
  readonly path: string;
  /** A file when it is left out. */
  readonly kind?: 'directory';
  readonly size_bytes?: number;
  readonly last_modified_at?: string;
  readonly backend_identity: string;
}

/** One object, before and after the changes; null where it does not exist. */
export interface Change {
  readonly before: Entry | null;
  readonly after: Entry | null;
}

const FILES_PER_DIRECTORY = 19;
/** Of these, one is overwritten, one deleted, one moved, and one created. */
const FILES_PER_CHANGES = 400;
/** Two files next to each other, in the first directory that is not below the renamed one. */
const SWAPPED: readonly number[] = [10, 11];
/** The part of the tree that is below the directory that is renamed. */
const RENAMED_PART = 20;

/** The directory that is renamed, and its name after that. */
export const RENAMED = { from: 'photos/2023', to: 'photos/2023 sorted' } as const;
const OTHERS = 'photos/2024';

/** The objects of a disk with so many files and directories, always the same, each with its place after the changes. */
export function* generateDisk(nodes: number): Generator<Change> {
  const leaves = Math.floor((nodes - 3) / (FILES_PER_DIRECTORY + 1));
  const renamedLeaves = Math.ceil(leaves / RENAMED_PART);
  yield unchanged(directory('photos', 1));
  yield moved(directory(RENAMED.from, 2), RENAMED.to);
  yield unchanged(directory(OTHERS, 3));
  for (let leaf = 0; leaf < leaves; leaf += 1) {
    const name = `event-${String(leaf).padStart(6, '0')}`;
    const isRenamed = leaf < renamedLeaves;
    const before = `${isRenamed ? RENAMED.from : OTHERS}/${name}`;
    const after = `${isRenamed ? RENAMED.to : OTHERS}/${name}`;
    yield moved(directory(before, 4 + leaf), after);
    for (let place = 0; place < FILES_PER_DIRECTORY; place += 1) {
      const file = leaf * FILES_PER_DIRECTORY + place;
      const object = 4 + leaves + file;
      const entry = fileEntry(`${before}/${fileName(file)}`, object);
      if (leaf === renamedLeaves && SWAPPED.includes(place)) {
        const other = place === SWAPPED[0] ? file + 1 : file - 1;
        yield moved(entry, `${after}/${fileName(other)}`);
      } else {
        yield* changesOf(file, object, moved(entry, `${after}/${fileName(file)}`));
      }
    }
  }
}

function* changesOf(file: number, object: number, { before, after }: Moved): Generator<Change> {
  const kind = file % FILES_PER_CHANGES;
  if (kind === 0) yield { before, after: { ...after, ...contentOf(object + 1) } };
  else if (kind === 1) yield { before, after: null };
  else if (kind === 2) yield moved(before, `${OTHERS}/moved-${file}.jpg`);
  else yield { before, after };
  if (kind === 3) yield { before: null, after: fileEntry(`${OTHERS}/new-${file}.jpg`, -object) };
}

const fileName = (file: number) => `IMG_${String(file).padStart(8, '0')}.jpg`;

/** The entries before or after the changes, in batches. */
export function* listDisk(nodes: number, side: keyof Change, size = 5_000): Generator<readonly Entry[]> {
  let batch: Entry[] = [];
  for (const change of generateDisk(nodes)) {
    const entry = change[side];
    if (entry === null) continue;
    batch.push(entry);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

interface Moved {
  readonly before: Entry;
  readonly after: Entry;
}

const unchanged = (entry: Entry): Moved => ({ before: entry, after: entry });

const moved = (entry: Entry, path: string): Moved => ({
  before: entry,
  after: path === entry.path ? entry : { ...entry, path },
});

const directory = (path: string, object: number): Entry => ({
  path,
  kind: 'directory',
  backend_identity: identityOf(object),
});

const fileEntry = (path: string, object: number): Entry => ({
  path,
  ...contentOf(object),
  backend_identity: identityOf(object),
});

const START = Date.UTC(2024, 0, 1);

function contentOf(object: number) {
  return {
    size_bytes: 1_000_000 + (Math.abs(object) % 7_000_000),
    last_modified_at: new Date(START + object * 1000).toISOString(),
  };
}

/** As long as inode and birth time are in base 36, which takes longer to write. */
const identityOf = (object: number) => `${50_000_000 + object}-${START + object}`;
