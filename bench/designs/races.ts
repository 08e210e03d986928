import { setTimeout as delay } from 'node:timers/promises';
import pg, { type Client } from 'pg';
import type { Design, Place, Query } from './design.ts';
import type { Race } from './measurement-store.ts';
import { run, type Scene } from './sampling.ts';

const CREATORS = 4;
const MOST_SWAPS = 100;
const IN_FLIGHT_MS = 20;
/** A recursive query over a cycle does not end. */
const TIMEOUT = '20s';

/** The directories of a mount that the connections work on. */
interface Ground {
  readonly mountId: string;
  readonly left: Place;
  readonly right: Place;
  readonly tree: Place;
  /** Id of a directory below `tree`, or of `tree` when a small catalogue has none there. */
  readonly innerId: string;
}

interface Counts {
  writes: number;
  refused: number;
  deadlocks: number;
  /** Live nodes that were below a deleted directory, before it was restored. */
  orphans: number;
}

/** Really lets connections meet, and counts what is wrong afterwards. Each race has a new mount. */
export async function runRaces(scene: Scene): Promise<void> {
  for (const design of scene.designs) {
    const { move, deleteTree, restoreTree, create } = design;
    if (!move || !deleteTree || !restoreTree || !create || !design.wrongRows) continue;
    scene.say(`races: ${design.title}`);
    await race(scene, design, 'creates below a directory that moves', async (ground, counts, connect) => {
      const mover = await connect();
      let [from, to] = [ground.left, ground.right];
      await untilOver(scene.seconds, async (over) => {
        await Promise.all([
          creating(design, ground, counts, connect, over),
          repeat(over, async () => {
            const place = { ...ground.tree, path: `${from.path}/tree` };
            if (await attempt(mover, move(place, to, 'tree'), counts)) [from, to] = [to, from];
          }),
        ]);
      });
    });
    await race(
      scene,
      design,
      'creates below a directory that is deleted',
      async (ground, counts, connect) => {
        const deleter = await connect();
        await untilOver(scene.seconds, async (over) => {
          await Promise.all([
            creating(design, ground, counts, connect, over),
            repeat(over, async () => {
              await attempt(deleter, deleteTree(ground.tree), counts);
              // Creates that began before the delete end in the meantime.
              await delay(IN_FLIGHT_MS);
              counts.orphans += await countOrphans(deleter, design, ground.mountId);
              await attempt(deleter, restoreTree(ground.tree), counts);
            }),
          ]);
        });
      },
    );
    await race(
      scene,
      design,
      'two directories that move into each other',
      async (ground, counts, connect) => {
        const [one, other] = [await connect(), await connect()];
        const { left, right, mountId } = ground;
        const root = await rootOf(scene, design, mountId);
        for (let swap = 0; swap < MOST_SWAPS; swap += 1) {
          const moved = await Promise.all([
            attempt(one, move(left, right, 'left'), counts),
            attempt(other, move(right, left, 'right'), counts),
          ]);
          // Both are in a cycle now: nothing reaches them any more.
          if (moved[0] && moved[1]) return;
          if (moved[0])
            await attempt(one, move({ ...left, path: `${right.path}/left` }, root, 'left'), counts);
          if (moved[1])
            await attempt(one, move({ ...right, path: `${left.path}/right` }, root, 'right'), counts);
        }
      },
    );
  }
}

type Connect = () => Promise<Client>;

async function race(
  scene: Scene,
  design: Design,
  name: string,
  work: (ground: Ground, counts: Counts, connect: Connect) => Promise<void>,
): Promise<void> {
  const counts: Counts = { writes: 0, refused: 0, deadlocks: 0, orphans: 0 };
  const clients: Client[] = [];
  const connect = async () => {
    const client = new pg.Client(scene.url);
    await client.connect();
    await client.query(`set statement_timeout = '${TIMEOUT}'`);
    clients.push(client);
    return client;
  };
  const ground = await prepareGround(scene, design, name);
  try {
    await work(ground, counts, connect);
  } finally {
    await Promise.all(clients.map((client) => client.end()));
  }
  scene.store.addRace({
    race: name,
    design: design.key,
    ...counts,
    ...(await countDamage(scene, design, ground.mountId)),
  });
}

async function prepareGround(scene: Scene, design: Design, name: string): Promise<Ground> {
  const { client, tree } = scene;
  if (!design.createMount || !design.copyTree) throw new Error(`${design.title} has no mounts`);
  const { mountId, rootId } = await design.createMount(client, `race-${name.replaceAll(' ', '-')}`);
  for (const copy of ['left', 'right']) await run(client, design.copyTree(tree.racing, rootId, copy));
  const leftId = await copyOf(client, design, rootId, 'left');
  await run(client, design.copyTree(tree.racing, leftId, 'tree'));
  const treeId = await copyOf(client, design, leftId, 'tree');
  const place = (id: string, parentId: string, path: string): Place => ({
    id,
    mountId,
    parentId,
    path,
    name: path.slice(path.lastIndexOf('/') + 1),
  });
  return {
    mountId,
    left: place(leftId, rootId, 'left'),
    right: place(await copyOf(client, design, rootId, 'right'), rootId, 'right'),
    tree: place(treeId, leftId, 'left/tree'),
    innerId: (await findDirectory(client, design, treeId)) ?? treeId,
  };
}

/** The id of a directory in another one: that with the name, or the first. */
async function findDirectory(
  client: Client,
  design: Design,
  parentId: string,
  name?: string,
): Promise<string | undefined> {
  const { table } = design.nodes;
  const { rows } = await client.query(
    `select id from ${table} where parent_id = $1 and kind = 'directory' and ($2::text is null or name = $2) order by id limit 1`,
    [parentId, name ?? null],
  );
  return rows[0]?.id;
}

async function copyOf(client: Client, design: Design, parentId: string, name: string): Promise<string> {
  const id = await findDirectory(client, design, parentId, name);
  if (id === undefined) throw new Error(`${design.title} made no copy "${name}"`);
  return id;
}

async function rootOf({ client }: Scene, design: Design, mountId: string): Promise<Place> {
  const { table, mount } = design.nodes;
  const { rows } = await client.query(`select id from ${table} where ${mount} = $1 and parent_id is null`, [
    mountId,
  ]);
  return { id: rows[0].id, mountId, parentId: '', path: '', name: '' };
}

async function creating(
  { create }: Design,
  ground: Ground,
  counts: Counts,
  connect: Connect,
  over: () => boolean,
): Promise<void> {
  await Promise.all(
    Array.from({ length: CREATORS }, async (_, creator) => {
      const client = await connect();
      const text =
        create?.({
          mountId: ground.mountId,
          parentId: '$1::bigint',
          parentPath: "''",
          name: '$2::text',
          sizeBytes: '$3::bigint',
        }) ?? '';
      let count = 0;
      await repeat(over, async () => {
        count += 1;
        await attempt(client, { text, values: [ground.innerId, `made-${creator}-${count}`, count] }, counts);
      });
    }),
  );
}

async function untilOver(seconds: number, work: (over: () => boolean) => Promise<void>): Promise<void> {
  const end = performance.now() + seconds * 1000;
  await work(() => performance.now() > end);
}

async function repeat(over: () => boolean, work: () => Promise<void>): Promise<void> {
  while (!over()) await work();
}

/** Whether a write changed something. Refusals are what a design promises; deadlocks cost the caller a repetition. */
async function attempt(client: Client, query: Query, counts: Counts): Promise<boolean> {
  try {
    const { rowCount } = await run(client, query);
    counts[rowCount === 0 ? 'refused' : 'writes'] += 1;
    return rowCount !== 0;
  } catch (error) {
    counts[(error as { code?: string }).code === '40P01' ? 'deadlocks' : 'refused'] += 1;
    return false;
  }
}

async function countOrphans(client: Client, design: Design, mountId: string): Promise<number> {
  const { table, mount, live } = design.nodes;
  const { rows } = await client.query(
    `select count(*)::integer as orphans
     from ${table} n
     join ${table} p on p.id = n.parent_id
     where n.${mount} = $1 and n.${live} and not (p.${live})`,
    [mountId],
  );
  return rows[0].orphans;
}

async function countDamage(
  { client }: Scene,
  design: Design,
  mountId: string,
): Promise<Pick<Race, 'unreachable' | 'wrong'>> {
  const { table, mount } = design.nodes;
  const { rows: lost } = await client.query(
    `with recursive reached (id) as (
       select n.id from ${table} n where n.${mount} = $1 and n.parent_id is null
       union all
       select n.id from reached r join ${table} n on n.parent_id = r.id
     )
     select count(*)::integer as unreachable
     from ${table} n
     where n.${mount} = $1 and not exists (select from reached r where r.id = n.id)`,
    [mountId],
  );
  await design.settle?.(client);
  const wrong =
    design.wrongRows === undefined ? 0 : (await run(client, design.wrongRows(mountId))).rows[0].wrong;
  return { ...lost[0], wrong: Number(wrong) };
}
