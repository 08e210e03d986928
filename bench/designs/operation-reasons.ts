const ONE_CHANGE =
  'rules are checked, the whole row goes to the history, and a delta of the totals is appended';

/** Why this schema pays more, for the operations whose key begins so. The first that fits counts. */
const REASONS: readonly (readonly [key: string, reason: string])[] = [
  [
    'move',
    'a path is kept in every row, so a move writes each row below, with a version of it, by the key that proves the tree',
  ],
  ['deleteFile', ONE_CHANGE],
  [
    'delete',
    'the key is checked for each row, each writes a version of more columns, and each appends a delta of the totals',
  ],
  [
    'restore',
    'one update for each level of the tree, each row checked by the key, with a version and a delta',
  ],
  [
    'copy',
    'each new row is checked by the key and the rules, and appends a delta; directories get a row of totals',
  ],
  [
    'erase',
    'rows are removed in batches with guards, with their totals and sightings, so that it can be interrupted',
  ],
  [
    'purge',
    'a tombstone is removed only when nothing is below it and its totals are folded, with its history and sightings',
  ],
  ['createFolds', 'a fold takes processor time from the creates'],
  [
    'createDirectory',
    'as for a create of a file; the key of directories has an index more, and a row of totals is inserted',
  ],
  [
    'create',
    'a trigger finds and locks the parent, the key and the rules are checked, and a delta of the totals is appended',
  ],
  ['overwrite', ONE_CHANGE],
  [
    'batch',
    'parents are locked, each row is checked by the key and the rules, and appends a delta of the totals',
  ],
  ['bulk', 'each row is checked by the key and the rules, and appends a delta of the totals'],
  ['load', 'each row is checked by the key and the rules, and appends a delta of the totals'],
  [
    'rootTotals',
    'folded totals and pending deltas are added at reading; a design that keeps sums only reads one row',
  ],
  [
    'totalsList',
    'folded totals and pending deltas are added at reading; a design that keeps sums only reads one row each',
  ],
  [
    'bytes',
    'a path and the path of the parent in each row, an index on the key of directories, and a row of totals for each directory',
  ],
  ['heartbeat1', 'the first sighting of a node inserts a row; later ones update it'],
  ['heartbeat', 'a function checks the moment and finds which nodes have a row'],
  ['byMetadata', 'the same index as in the other designs; the rows are wider'],
  ['firstPage', 'the same index as in the other designs; the rows are wider'],
  ['deepPage', 'the same index as in the other designs; the rows are wider'],
  ['byChecksum', 'a function converts the digest to its canonical form; the index holds eight bytes of it'],
  ['resolveDeleted', 'a function, which also finds the mount by its key and makes the path canonical'],
  [
    'nodeByPath',
    'a function call costs more than a lookup (its floor is the function that finds nothing), and this one finds the mount by its key and makes the path canonical',
  ],
  ['resolve', 'one lookup in an index of mount and path'],
  ['largest', 'rows are wider, and the report reads all of them'],
  ['duplicates', 'rows are wider, and the report reads all of them'],
  ['subtreeSum', 'rows are wider, and the sum reads all below'],
];

export function reasonFor(operation: string): string {
  return REASONS.find(([key]) => operation.startsWith(key))?.[1] ?? 'not explained yet';
}
