import {
  anyDirectory,
  anyLive,
  directoryName,
  fileName,
  isFull,
  type NodeRef,
  type Scene,
} from './known-nodes.ts';
import type { Random } from './seeded-random.ts';
import { type Operation, WRITTEN, writeOne } from './torture-operation.ts';

/** Operations that change the shape of the tree: moves, deletes and restores. */
export const SHAPE: readonly Operation[] = [
  move('move or rename of a file', 6, (scene) => scene.files, fileName),
  move('move or rename of a directory', 5, (scene) => scene.directories, directoryName),
  writeOne({
    kind: 'delete',
    weight: 6,
    expected: ['FS404', 'FS409'],
    choose: (scene, random) => on(anyLive(scene, random), `select ${WRITTEN} from filestore.delete_node($1)`),
  }),
  writeOne({
    kind: 'delete of a tree',
    weight: 3,
    expected: ['FS404', 'FS409'],
    never: /is not empty/,
    choose(scene, random) {
      // A small tree most of the time, so that some remains.
      const trees = random.chance(0.8) ? scene.directories.slice(-50) : scene.directories;
      return on(random.pick(trees), `select ${WRITTEN} from filestore.delete_node($1, recursive => true)`);
    },
  }),
  {
    kind: 'delete_batch',
    weight: 3,
    journalled: true,
    expected: [],
    plan(scene, random) {
      const batch = batchDelete(scene, random);
      if (batch === undefined) return undefined;
      const parameters = { node: batch.node.id, moment: batch.moment, max: random.between(2, 15) };
      return {
        mountId: batch.node.mountId,
        parameters,
        async work(client) {
          const { rows } = await client.query<{ deleted: number }>(
            'select filestore.delete_batch($1, $2, $3) as deleted',
            [parameters.node, parameters.max, parameters.moment],
          );
          return rows[0];
        },
      };
    },
  },
  writeOne({
    kind: 'restore',
    weight: 5,
    expected: ['FS404', 'FS409'],
    choose: (scene, random) =>
      on(random.pick(scene.tombstones), `select ${WRITTEN} from filestore.restore_node($1)`),
  }),
  writeOne({
    kind: 'restore of a tree',
    weight: 4,
    expected: ['FS404', 'FS409'],
    choose(scene, random) {
      if (isFull(scene)) return undefined;
      const trees = scene.tombstones.filter((node) => node.kind === 'directory');
      const batch = random.chance(0.3) ? random.pick(scene.batches) : undefined;
      return on(
        batch?.node ?? random.pick(trees),
        `select ${WRITTEN} from filestore.restore_node($1, with_tree => true)`,
      );
    },
  }),
  writeOne({
    kind: 'revert_node',
    weight: 4,
    expected: ['FS404', 'FS409', 'FS422'],
    choose(scene, random) {
      const node = random.pickEarly(
        random.chance(0.2) ? scene.tombstones : [...scene.directories, ...scene.files],
      );
      if (node === undefined || node.version === 1) return undefined;
      const version = random.between(1, node.version - 1);
      return on(node, `select ${WRITTEN} from filestore.revert_node($1, $2)`, version);
    },
  }),
];

function on(node: NodeRef | undefined, sql: string, ...values: readonly unknown[]) {
  return node === undefined ? undefined : { mountId: node.mountId, sql, values: [node.id, ...values] };
}

function move(
  kind: string,
  weight: number,
  from: (scene: Scene) => readonly NodeRef[],
  name: (random: Random) => string,
): Operation {
  return writeOne({
    kind,
    weight,
    expected: ['FS404', 'FS409', 'FS422'],
    choose(scene, random) {
      const node = random.pickEarly(from(scene));
      if (node === undefined) return undefined;
      const mount = scene.mounts.find(({ id }) => id === node.mountId);
      const target = random.chance(0.7) ? anyDirectory(scene, random, mount).id : null;
      const renamed = target === null || random.chance(0.5) ? name(random) : null;
      return on(
        node,
        `select ${WRITTEN} from filestore.move_node($1, $2, $3, $4)`,
        target,
        renamed,
        random.chance(0.3) ? node.version : null,
      );
    },
  });
}

/** Mostly a deletion that has already begun. */
function batchDelete(scene: Scene, random: Random) {
  const known = random.chance(0.8) ? random.pick(scene.batches) : undefined;
  if (known !== undefined) return known;
  const node = random.pick(scene.directories);
  if (node === undefined) return undefined;
  const fresh = { node, moment: new Date().toISOString() };
  scene.batches = [fresh, ...scene.batches].slice(0, 4);
  return fresh;
}
