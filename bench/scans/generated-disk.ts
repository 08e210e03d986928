/** What a service lists of one object, as `record_entries` takes it. */
export interface Entry {
  readonly path: string;
  readonly kind: 'file' | 'directory';
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
/** The part of the tree that is below the directory that is renamed. */
const RENAMED_PART = 20;

/** The directory that is renamed, and its name after that. */
export const RENAMED = { from: 'photos/2023', to: 'photos/2023 sorted' } as const;
const OTHERS = 'photos/2024';

/** The objects of a disk with so many files and directories, always the same, each with its place after the changes. */
export function* generateDisk(nodes: number): Generator<Change> {
  const leaves = Math.floor((nodes - 3) / (FILES_PER_DIRECTORY + 1));
  const renamedLeaves = Math.ceil(leaves / RENAMED_PART);
  const firstFile = renamedLeaves * FILES_PER_DIRECTORY;
  const swapped = [firstFile + 10, firstFile + 11] as const;
  const leafPath = (leaf: number, top: string) => `${top}/event-${String(leaf).padStart(6, '0')}`;
  const topOf = (leaf: number, after: boolean) =>
    leaf >= renamedLeaves ? OTHERS : after ? RENAMED.to : RENAMED.from;
  const filePath = (file: number, after: boolean) => {
    const leaf = Math.floor(file / FILES_PER_DIRECTORY);
    return `${leafPath(leaf, topOf(leaf, after))}/IMG_${String(file).padStart(8, '0')}.jpg`;
  };

  yield unchanged(directory('photos', 1));
  yield { before: directory(RENAMED.from, 2), after: directory(RENAMED.to, 2) };
  yield unchanged(directory(OTHERS, 3));
  for (let leaf = 0; leaf < leaves; leaf += 1) {
    const directoryAt = (after: boolean) => directory(leafPath(leaf, topOf(leaf, after)), 4 + leaf);
    yield { before: directoryAt(false), after: directoryAt(true) };
    for (let place = 0; place < FILES_PER_DIRECTORY; place += 1) {
      const file = leaf * FILES_PER_DIRECTORY + place;
      const object = 4 + leaves + file;
      const before = fileEntry(filePath(file, false), object);
      const other = swapped.find((twin) => swapped.includes(file) && twin !== file);
      const after = fileEntry(filePath(other ?? file, true), object);
      const kind = other === undefined ? file % FILES_PER_CHANGES : null;
      if (kind === 0) yield { before, after: { ...after, ...contentOf(object + 1) } };
      else if (kind === 1) yield { before, after: null };
      else if (kind === 2) yield { before, after: { ...after, path: `${OTHERS}/moved-${file}.jpg` } };
      else yield { before, after };
      if (kind === 3) yield { before: null, after: fileEntry(`${OTHERS}/new-${file}.jpg`, -object) };
    }
  }
}

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

const unchanged = (entry: Entry): Change => ({ before: entry, after: entry });

const directory = (path: string, object: number): Entry => ({
  path,
  kind: 'directory',
  backend_identity: identityOf(object),
});

const fileEntry = (path: string, object: number): Entry => ({
  path,
  kind: 'file',
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

/** As long as inode and birth time are in base 36. */
function identityOf(object: number): string {
  const birth = BigInt(START + object) * 1_000_000n;
  return `${(50_000_000 + object).toString(36)}-${birth.toString(36)}`;
}
