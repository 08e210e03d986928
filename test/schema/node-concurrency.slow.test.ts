import { beforeEach, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createDirectory, createMount, createNode, type Mount, moveNode } from '../support/rows/nodes.ts';

const database = databaseForFile();

let mount: Mount;
let directory: string;
let target: string;

beforeEach(async () => {
  mount = await createMount(database());
  directory = await createDirectory(database(), mount, mount.rootId, 'a');
  target = await createDirectory(database(), mount, mount.rootId, 'b');
});

test('random creates, moves and deletes from many connections leave every path correct', async () => {
  const clients = await Promise.all(Array.from({ length: 6 }, () => database().connect()));
  const directories = [directory, target];
  for (let index = 0; index < 6; index += 1) {
    directories.push(await createDirectory(database(), mount, mount.rootId, `d${index}`));
  }
  const random = <T>(values: readonly T[]): T => values[Math.floor(Math.random() * values.length)] as T;
  const expected = /^(FS404|FS409|FS422|23505|40P01)$/;
  const unexpected: string[] = [];
  await Promise.all(
    clients.map(async (client, worker) => {
      for (let step = 0; step < 60; step += 1) {
        const work = [
          () => createNode(client, mount, random(directories), `f-${worker}-${step}`),
          () => createNode(client, mount, random(directories), `g-${worker}-${step}`),
          () => moveNode(client, random(directories), random([mount.rootId, ...directories])),
          () =>
            client.query(
              "update filestore.nodes set state = 'deleted' where kind = 'file' and live and name like $1",
              [`f-${worker}-%`],
            ),
        ];
        await random(work)().catch((error) => {
          if (!expected.test(error.code)) unexpected.push(`${error.code} ${error.message}`);
        });
      }
    }),
  );
  expect(unexpected).toEqual([]);
  const wrong = await database().query(
    `with recursive tree as (
       select id, path, live from filestore.nodes where parent_id is null
       union all
       select c.id, case tree.path when '' then c.name else tree.path || '/' || c.name end, c.live
       from tree join filestore.nodes c on c.parent_id = tree.id and c.live
     )
     select n.id, n.path, t.path as true_path
     from filestore.nodes n left join tree t using (id)
     where n.live and n.path is distinct from t.path`,
  );
  expect(wrong).toEqual([]);
});
