import {
  anyDirectory,
  anyLive,
  anyMount,
  directoryName,
  fileName,
  isFull,
  type Scene,
} from './known-nodes.ts';
import type { WrittenNode } from './recorder.ts';
import type { Random } from './seeded-random.ts';
import { type Operation, WRITTEN, writeOne } from './torture-operation.ts';

const INSERT = `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, size_bytes)
  values ($1, $2, $3, $4, $5) returning ${WRITTEN}`;

/** The usual writes of a service to nodes that do not move. */
export const WRITES: readonly Operation[] = [
  writeOne({
    kind: 'create_node',
    weight: 14,
    expected: ['FS404', 'FS409'],
    creates: true,
    choose(scene, random) {
      if (isFull(scene)) return undefined;
      const directory = anyDirectory(scene, random);
      const values = random.chance(0.3)
        ? [directory.id, directoryName(random), 'directory', 0]
        : [directory.id, fileName(random), 'file', size(random)];
      const sql = `select ${WRITTEN} from filestore.create_node($1, $2, $3, $4)`;
      return { mountId: directory.mountId, sql, values };
    },
  }),
  writeOne({
    kind: 'create_node with a shared key',
    weight: 8,
    expected: ['FS404', 'FS409'],
    creates: true,
    choose(scene, random) {
      const { key, directory, name } = keyedFile(scene, random);
      const sql = `select ${WRITTEN} from filestore.create_node($1, $2, 'file', 7)`;
      return { mountId: directory.mountId, sql, values: [directory.id, name], key };
    },
  }),
  writeOne({
    kind: 'ensure_directory',
    weight: 8,
    expected: ['FS409'],
    choose(scene, random) {
      if (isFull(scene)) return undefined;
      const mount = anyMount(scene, random);
      const base = anyDirectory(scene, random, mount);
      const chain = Array.from({ length: random.between(1, 8) }, () => directoryName(random));
      const path = [...(base.path === '' ? [] : [base.path]), ...chain].join('/');
      const sql = `select ${WRITTEN} from filestore.ensure_directory($1, $2)`;
      return { mountId: mount.id, sql, values: [mount.key, path] };
    },
  }),
  writeOne({
    kind: 'upsert_file',
    weight: 10,
    expected: ['FS409'],
    choose(scene, random) {
      const mount = anyMount(scene, random);
      // Mostly an existing file, so that callers collide.
      const files = scene.files.filter((file) => file.mountId === mount.id);
      const known = isFull(scene) || random.chance(0.7) ? random.pickEarly(files) : undefined;
      if (known === undefined && isFull(scene)) return undefined;
      const base = anyDirectory(scene, random, mount);
      const added = [...(random.chance(0.3) ? [directoryName(random)] : []), fileName(random)];
      const path = known?.path ?? [...(base.path === '' ? [] : [base.path]), ...added].join('/');
      const expected = random.chance(0.3) ? (known?.version ?? 0) : null;
      const sql = `select ${WRITTEN} from filestore.upsert_file($1, $2, $3, expected_version => $4,
        last_seen_at => case when $5 then now() end)`;
      return {
        mountId: mount.id,
        sql,
        values: [mount.key, path, size(random), expected, random.chance(0.5)],
      };
    },
  }),
  writeOne({
    kind: 'merge_metadata',
    weight: 4,
    expected: ['FS404'],
    choose(scene, random) {
      const node = anyLive(scene, random);
      if (node === undefined) return undefined;
      const sql = `select ${WRITTEN} from filestore.merge_metadata($1, $2, $3)`;
      const values = [node.id, { [`tag-${random.between(1, 9)}`]: 1 }, [`tag-${random.between(1, 9)}`]];
      return { mountId: node.mountId, sql, values };
    },
  }),
  writeOne({
    kind: 'plain insert',
    weight: 6,
    expected: ['FS404', '23505'],
    creates: true,
    choose(scene, random) {
      if (isFull(scene)) return undefined;
      const directory = anyDirectory(scene, random);
      const values = [directory.mountId, directory.id, fileName(random), 'file', size(random)];
      return { mountId: directory.mountId, sql: INSERT, values };
    },
  }),
  writeOne({
    kind: 'bulk insert',
    weight: 3,
    expected: ['FS404', '23505'],
    creates: true,
    choose(scene, random) {
      if (isFull(scene)) return undefined;
      const directory = anyDirectory(scene, random);
      // Sorted, so that two callers with the same names do not deadlock.
      const prefix = random.between(0, 9);
      const names = Array.from({ length: random.between(5, 30) }, (_, index) => `b${prefix}-${index}`).sort();
      const sql = `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, size_bytes)
        select $1, $2, name, 'file', length(name) from unnest($3::text[]) as name returning ${WRITTEN}`;
      return { mountId: directory.mountId, sql, values: [directory.mountId, directory.id, names] };
    },
  }),
  writeOne({
    kind: 'create_nodes',
    weight: 4,
    expected: ['FS404', 'FS409'],
    creates: true,
    choose(scene, random) {
      if (isFull(scene)) return undefined;
      const directories = Array.from({ length: random.between(1, 3) }, () => anyDirectory(scene, random));
      // Not sorted by directory or name: create_nodes has to sort them.
      const nodes = Array.from({ length: random.between(2, 20) }, () => ({
        parent_id: random.pick(directories)?.id,
        name: `n${random.between(0, 200)}`,
        ...(random.chance(0.2) ? { kind: 'directory' } : { size_bytes: size(random) }),
      }));
      const sql = `select ${WRITTEN} from filestore.create_nodes($1)`;
      return { mountId: directories[0]?.mountId ?? '', sql, values: [JSON.stringify(nodes)] };
    },
  }),
  writeOne({
    kind: 'copy_tree',
    weight: 4,
    expected: ['FS404', 'FS409', 'FS422'],
    creates: true,
    choose(scene, random) {
      if (isFull(scene)) return undefined;
      const sources = random.chance(0.8)
        ? scene.directories.slice(-50)
        : [...scene.directories, ...scene.files];
      const source = random.pick(sources);
      if (source === undefined) return undefined;
      const directory = anyDirectory(scene, random);
      const name = random.chance(0.7) ? directoryName(random) : null;
      const sql = `select ${WRITTEN} from filestore.copy_tree($1, $2, $3)`;
      return { mountId: directory.mountId, sql, values: [source.id, directory.id, name] };
    },
  }),
  writeOne({
    kind: 'content update',
    weight: 12,
    expected: [],
    choose(scene, random) {
      const file = random.pickEarly(scene.files);
      if (file === undefined) return undefined;
      const sql = `update filestore.nodes set size_bytes = $2, metadata = $3, last_modified_at = now()
        where id = $1 and live returning ${WRITTEN}`;
      return { mountId: file.mountId, sql, values: [file.id, size(random), { tag: random.between(1, 9) }] };
    },
  }),
  writeOne({
    kind: 'state change',
    weight: 5,
    expected: ['FS422'],
    choose(scene, random) {
      const node = anyLive(scene, random);
      if (node === undefined) return undefined;
      const sql = `update filestore.nodes set state = $2 where id = $1 and live returning ${WRITTEN}`;
      return {
        mountId: node.mountId,
        sql,
        values: [node.id, random.pick(['active', 'inconsistent', 'missing'])],
      };
    },
  }),
  severalRows(
    'content update of several',
    3,
    true,
    (random) => `size_bytes = case kind when 'file' then ${size(random)} else 0 end`,
  ),
  sightings('sighting', 8, 1),
  sightings('pass over many nodes', 3, 60),
];

/** Writes several existing rows as docs/schema.md requires: under the shared tree lock, and in order of id. */
function severalRows(
  kind: string,
  weight: number,
  journalled: boolean,
  change: (random: Random) => string,
): Operation {
  return {
    kind,
    weight,
    journalled,
    expected: [],
    plan(scene, random) {
      const mount = anyMount(scene, random);
      const nodes = [...scene.files, ...scene.directories].filter((node) => node.mountId === mount.id);
      const chosen = Array.from(
        { length: random.between(2, 12) },
        () => random.pickEarly(nodes)?.id ?? mount.rootId,
      );
      const ids = [...new Set(chosen)].sort((one, other) => Number(one) - Number(other));
      const set = change(random);
      return {
        mountId: mount.id,
        parameters: { ids, set },
        async work(client, effects) {
          await client.query('select filestore.lock_tree($1, false)', [mount.id]);
          const written: WrittenNode[] = [];
          // One row at a time, as a service does that writes while it reads.
          for (const id of ids) {
            const { rows } = await client.query<WrittenNode>(
              `update filestore.nodes set ${set} where id = $1 and live returning ${WRITTEN}`,
              [id],
            );
            written.push(...rows);
          }
          effects.wrote(written);
          return { count: written.length };
        },
      };
    },
  };
}

/** A report of a watcher or reconciler. It changes no node, and may contain the id of a purged one. */
function sightings(kind: string, weight: number, most: number): Operation {
  return {
    kind,
    weight,
    journalled: false,
    expected: [],
    plan(scene, random) {
      const nodes = [...scene.files, ...scene.directories, ...scene.tombstones];
      const ids = Array.from(
        { length: random.between(1, most) },
        () => random.pickEarly(nodes)?.id ?? anyMount(scene, random).rootId,
      );
      return {
        mountId: null,
        parameters: {},
        work: (client) =>
          client.query('select filestore.record_sightings($1, now(), case when $2 then now() end)', [
            ids,
            random.chance(0.3),
          ]),
      };
    },
  };
}

const size = (random: Random) => random.between(0, 5000);

/** Mostly the key of another worker. */
function keyedFile(scene: Scene, random: Random) {
  const known = random.chance(0.7) ? random.pick(scene.keyed) : undefined;
  if (known !== undefined) return known;
  const fresh = {
    key: `key-${random.next()}`,
    directory: anyDirectory(scene, random),
    name: fileName(random),
  };
  scene.keyed = [fresh, ...scene.keyed].slice(0, 6);
  return fresh;
}
