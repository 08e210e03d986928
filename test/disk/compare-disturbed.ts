import type { Sql } from '../support/rows/nodes.ts';
import { comparePlaces, type Pass } from './compare-disk.ts';
import type { Disturbances } from './disturbances.ts';
import { contentDifferences, contentOfNode } from './expected-content.ts';
import { readNodes } from './known-nodes.ts';

/**
 * What holds when a service has written while a scan was at work: its nodes stay as it wrote them, and what has nothing to do
 * with them follows the disk as if it had not.
 */
export async function compareDisturbed(
  sql: Sql,
  pass: Pass,
  others: Disturbances,
): Promise<readonly string[]> {
  const rows = await readNodes(sql, pass.mountKey);
  const after = new Map(rows.map((row) => [row.id, row]));
  const lost = [...others.written.values()].flatMap((written) => {
    const row = after.get(written.id);
    const found = `node ${written.id} ("${written.path}"), which others wrote`;
    if (row === undefined) return [`${found}, is gone`];
    const isThere = row.parent_id === written.parent_id && row.name === written.name;
    const changes = contentDifferences(row, contentOfNode(written));
    return [
      ...(isThere ? [] : [`${found}, moved to ${row.path}`]),
      ...changes.map((change) => `${found}: ${change}`),
    ];
  });
  const isRelated = relatedTo(pass, others);
  const quiet: Pass = {
    ...pass,
    entries: pass.entries.filter(({ path }) => !isRelated(`path ${path}`)),
    before: pass.before.filter(({ id, path }) => path === '' || !isRelated(`node ${id}`)),
  };
  const own = rows.filter(
    ({ id, path }) => path !== '' && !isRelated(`node ${id}`) && !isRelated(`path ${path}`),
  );
  const counts = ['created', 'moved', 'changed', 'found', 'missing', 'deleted', 'skipped', 'seen'];
  const negative = counts
    .filter((name) => Number(pass.finished[name]) < 0)
    .map((name) => `counts less than no ${name}`);
  return [...lost, ...negative, ...comparePlaces(quiet, own)];
}

/** Whether an object may depend on what others wrote: by its path, its identity, or the directories above it. */
function relatedTo({ before, entries, expected }: Pass, others: Disturbances): (token: string) => boolean {
  const parents = new Map<string, string>();
  const topOf = (token: string): string => {
    const parent = parents.get(token);
    return parent === undefined || parent === token ? token : topOf(parent);
  };
  const join = (...tokens: readonly string[]) => {
    const [first, ...rest] = tokens.map(topOf);
    for (const other of rest) if (first !== undefined && other !== first) parents.set(other, first);
  };
  const joinPath = (token: string, path: string) => {
    const parent = path.slice(0, Math.max(path.lastIndexOf('/'), 0));
    join(token, `path ${path}`, ...(parent === '' ? [] : [`path ${parent}`]));
  };
  for (const { id, path, kind, identity } of before) {
    if (path === '') continue;
    joinPath(`node ${id}`, path);
    joinPath(`node ${id}`, expected.lastPaths.get(id) ?? path);
    if (identity !== null) join(`node ${id}`, `${kind} ${identity}`);
  }
  for (const { path, kind, backend_identity: identity } of entries) {
    joinPath(`path ${path}`, path);
    const id = expected.places.get(path);
    if (id) join(`path ${path}`, `node ${id}`);
    if (identity !== undefined) join(`path ${path}`, `${kind} ${identity}`);
  }
  for (const path of others.paths) joinPath('others', path);
  for (const id of others.written.keys()) join('others', `node ${id}`);
  return (token) => topOf(token) === topOf('others');
}
