import type { Client } from 'pg';
import { anyDirectory, anyMount, directoryName, fileName, isFull } from './known-nodes.ts';
import { listPassing } from './passing-mounts.ts';
import type { Random } from './seeded-random.ts';
import type { Operation } from './torture-operation.ts';

/** The nodes in and below a directory, as a backend on which others have renamed, swapped and removed things. */
const LISTED = `select substr(n.path, length(d.path) + 1 + (d.path <> '')::integer) as path, n.kind,
    coalesce(n.backend_identity, 'i' || n.id) as backend_identity, n.size_bytes
  from filestore.nodes d
  join filestore.nodes n on n.backend_mount_id = d.backend_mount_id and n.live and n.parent_live
    and (d.path = '' or starts_with(n.path, d.path || '/'))
  where d.id = $1 and d.live
  order by n.path
  limit 300`;

interface Listed {
  readonly path: string;
  readonly kind: 'file' | 'directory';
  readonly backend_identity: string;
  readonly size_bytes: string;
}

/** Scans whose entries differ from the catalogue, and which any worker continues to apply. */
export const SCANS: readonly Operation[] = [
  {
    kind: 'begin_scan and record_entries',
    weight: 5,
    journalled: false,
    // Another scan covers it, the directory has moved in between, or the mount moves or is erased.
    expected: ['FS404', 'FS409', 'FS422'],
    plan(scene, random) {
      if (isFull(scene)) return undefined;
      const passing = random.chance(0.3) ? scene.passing : undefined;
      const mount = passing ?? anyMount(scene, random);
      const directory = passing === undefined ? anyDirectory(scene, random, mount) : { path: '' };
      return {
        mountId: null,
        parameters: {},
        async work(client) {
          const begun = await client.query<{ id: string; directory_id: string }>(
            "select id, directory_id from filestore.begin_scan($1, $2, expire_after => '3 seconds')",
            [mount.key, directory.path],
          );
          const [scan] = begun.rows;
          const { rows } = await client.query<Listed>(LISTED, [scan?.directory_id]);
          const entries = passing === undefined ? changed(rows, random) : listPassing(random);
          await client.query('select filestore.record_entries($1, $2)', [scan?.id, JSON.stringify(entries)]);
        },
      };
    },
  },
  {
    kind: 'apply_scan',
    weight: 10,
    journalled: false,
    // Another worker applies it, it has expired, or its directory has moved.
    expected: ['FS404', 'FS409'],
    plan: (_, random) => ({
      mountId: null,
      parameters: {},
      isFirstWrite: true,
      async work(client) {
        const id = await anyScan(client, random);
        if (id !== undefined) {
          await client.query('select filestore.apply_scan($1, 1, $2)', [id, random.between(1, 40)]);
        }
      },
    }),
  },
  {
    kind: 'cancel_scan',
    weight: 0.3,
    journalled: false,
    // It has ended in the meantime.
    expected: ['FS404', 'FS409'],
    plan: (_, random) => ({
      mountId: null,
      parameters: {},
      async work(client) {
        const id = await anyScan(client, random);
        if (id !== undefined) await client.query('select filestore.cancel_scan($1)', [id]);
      },
    }),
  },
  {
    kind: 'expire_scans',
    weight: 1,
    journalled: false,
    expected: [],
    plan: () => ({
      mountId: null,
      parameters: {},
      work: (client) => client.query("select filestore.expire_scans('1 second')"),
    }),
  },
  {
    kind: 'sync_nodes',
    weight: 4,
    journalled: true,
    // A file is where a directory is needed, or the other way round.
    expected: ['FS404', 'FS409'],
    plan(scene, random) {
      if (isFull(scene)) return undefined;
      const mount = anyMount(scene, random);
      const directory = anyDirectory(scene, random, mount);
      const names = new Set(Array.from({ length: random.between(1, 8) }, () => fileName(random)));
      const entries = [...names].map((name) => ({ path: name, size_bytes: random.between(0, 9) }));
      return {
        mountId: mount.id,
        parameters: { entries: entries.length },
        async work(client) {
          const { rows } = await client.query(
            'select node_id, version, outcome from filestore.sync_nodes($1, $2, $3)',
            [mount.key, JSON.stringify(entries), directory.path],
          );
          return { nodes: rows.map((row) => [row.node_id, row.version]) };
        },
      };
    },
  },
];

async function anyScan(client: Client, random: Random): Promise<string | undefined> {
  const { rows } = await client.query<{ id: string }>(
    'select id from filestore.scans where ended_at is null order by id',
  );
  return random.pick(rows)?.id;
}

function changed(listed: readonly Listed[], random: Random): readonly object[] {
  const kept = listed.filter(() => random.chance(0.95));
  const identities = kept.map(({ backend_identity: identity }) => identity);
  for (let swaps = random.between(0, 4); swaps > 0; swaps -= 1) {
    const [one, other] = [random.between(0, kept.length - 1), random.between(0, kept.length - 1)];
    if (kept[one]?.kind !== kept[other]?.kind) continue;
    [identities[one], identities[other]] = [identities[other] ?? '', identities[one] ?? ''];
  }
  const entries = kept.map((entry, index) => ({ ...entry, backend_identity: identities[index] ?? '' }));
  const directories = new Set(kept.filter(({ kind }) => kind === 'directory').map(({ path }) => path));
  const isBelowGone = ({ path }: Listed) => {
    const parent = path.slice(0, Math.max(path.lastIndexOf('/'), 0));
    return parent !== '' && !directories.has(parent);
  };
  const known = entries.filter((entry) => !isBelowGone(entry));
  const added = { path: `${directoryName(random)}-new/${fileName(random)}`, size_bytes: 1 };
  return random.chance(0.5) ? [...known, added] : known;
}
