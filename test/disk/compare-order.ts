import type { PlannedChange } from './expected-changes.ts';

const parentOf = (path: string) => path.slice(0, Math.max(path.lastIndexOf('/'), 0));
const depthOf = (path: string) => path.split('/').length;

/** What is wrong with the order in which a scan would change nodes: each change needs others before it. */
export function compareOrder(planned: readonly PlannedChange[]): readonly string[] {
  const places = new Map(planned.map((change, at) => [change, at]));
  const placeOf = (change: PlannedChange) => places.get(change) ?? 0;
  const isPlaced = ({ action }: PlannedChange) => action === 'create' || action === 'move';
  const directories = new Map(
    planned
      .filter((change) => isPlaced(change) && change.kind === 'directory')
      .map((change) => [change.path, change]),
  );
  const early = planned.filter(isPlaced).flatMap((change) => {
    const above = directories.get(parentOf(change.path));
    return above === undefined || placeOf(above) < placeOf(change)
      ? []
      : [`${change.action} ${change.path} comes before its directory`];
  });
  return [...early, ...compareDeletes(planned), ...compareMoves(planned, placeOf)];
}

/** What is in a directory is deleted, or leaves it, before the directory is deleted. */
function compareDeletes(planned: readonly PlannedChange[]): readonly string[] {
  const gone = new Set<string>();
  return planned.flatMap((change) => {
    if (change.action === 'delete' && change.kind === 'directory') gone.add(change.from_path ?? '');
    const from = change.from_path ?? '';
    const isLate = (change.action === 'delete' || change.action === 'move') && gone.has(parentOf(from));
    return isLate ? [`${change.action} of ${from} comes after the deletion of its directory`] : [];
  });
}

/** In a chain, the last one moves first. Two that swap follow each other, so that a batch can end after them. */
function compareMoves(
  planned: readonly PlannedChange[],
  placeOf: (change: PlannedChange) => number,
): readonly string[] {
  const moves = planned.filter(({ action }) => action === 'move');
  const moved = new Set(moves.filter(({ kind }) => kind === 'directory').map(({ from_path: from }) => from));
  const isBelowMoved = (path: string): boolean =>
    path !== '' && (moved.has(path) || isBelowMoved(parentOf(path)));
  // Where directories move too, a node leaves another path than the one that is listed.
  const plain = moves.filter(
    ({ path, from_path: from }) => !isBelowMoved(parentOf(from ?? '')) && !isBelowMoved(parentOf(path)),
  );
  const moveFrom = new Map(plain.map((change) => [`${change.kind} ${change.from_path}`, change]));
  const blockerOf = ({ kind, path }: PlannedChange) => {
    const blocker = moveFrom.get(`${kind} ${path}`);
    return blocker === undefined || depthOf(blocker.path) !== depthOf(path) ? undefined : blocker;
  };
  return plain.flatMap((change) => {
    const blocker = blockerOf(change);
    if (blocker === undefined) return [];
    if (blockerOf(blocker) === change)
      return Math.abs(placeOf(blocker) - placeOf(change)) === 1
        ? []
        : [`${change.path} does not follow its swap`];
    const isLate = placeOf(change) > placeOf(blocker);
    return isLate || isInCircle(change, blockerOf) ? [] : [`${change.path} moves before that place is free`];
  });
}

function isInCircle(
  change: PlannedChange,
  blockerOf: (change: PlannedChange) => PlannedChange | undefined,
): boolean {
  const seen = new Set<PlannedChange>();
  let next = blockerOf(change);
  while (next !== undefined && next !== change && !seen.has(next)) {
    seen.add(next);
    next = blockerOf(next);
  }
  return next === change;
}
