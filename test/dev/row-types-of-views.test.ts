import { describe, expect, test } from 'vitest';
import { fieldsOf, typesOf } from '../support/row-types.ts';
import { databaseRolledBackAfterEachTest } from '../support/test-database.ts';

const changed = databaseRolledBackAfterEachTest();

describe("a view's column", () => {
  const view = async (query: string) => {
    await changed().query(`create view filestore.odd_views as ${query}`);
    return fieldsOf(await typesOf(changed), 'OddViewRow');
  };

  test.each([
    ['comes from a column that is never null', 'select id from filestore.nodes', 'string'],
    [
      'is cast from one',
      'select n.size_bytes::numeric::bigint as id from filestore.nodes n',
      'string | null',
    ],
    ['is cast once', 'select n.name::text as id from filestore.nodes n', 'string'],
    [
      'has the values that its check lists',
      'select m.access_mode as id from filestore.backend_mounts m',
      "'rw' | 'ro'",
    ],
    ['comes from a column that may be null', 'select parent_id as id from filestore.nodes', 'string | null'],
    [
      'comes from the outer side of a left join',
      'select n.id from filestore.nodes n left join filestore.rollups r on r.node_id = n.id',
      'string',
    ],
    [
      'comes from the nullable side of a left join',
      'select r.node_id as id from filestore.nodes n left join filestore.rollups r on r.node_id = n.id',
      'string | null',
    ],
    [
      'comes from the nullable side of a right join',
      'select r.node_id as id from filestore.rollups r right join filestore.nodes n on r.node_id = n.id',
      'string | null',
    ],
    [
      'comes from a join on the nullable side of a left join',
      `select s.id from filestore.nodes n
       left join (filestore.rollups r join filestore.snapshots s on s.id = r.node_id) on r.node_id = n.id`,
      'string | null',
    ],
    [
      'comes from a full join',
      'select n.id from filestore.nodes n full join filestore.rollups r on r.node_id = n.id',
      'string | null',
    ],
    [
      'comes from a subquery',
      'select q.id from (select r.node_id as id from filestore.nodes n left join filestore.rollups r on r.node_id = n.id) q',
      'string | null',
    ],
    [
      'has the name of a column, but another source',
      "select ', n.id AS id, ' as text, nullif(n.id, 1) as id from filestore.nodes n",
      'string | null',
    ],
    [
      'is null in one branch of a union',
      'select id from filestore.nodes union all select parent_id from filestore.nodes',
      'string | null',
    ],
    [
      'is an expression in one branch of a union',
      'select id from filestore.nodes union all select max(n.id) from filestore.nodes n',
      'string | null',
    ],
    [
      'is never null in any branch of a union',
      'select id from filestore.nodes union all select r.node_id from filestore.rollups r',
      'string',
    ],
    [
      'is of another type in another branch',
      'select access_mode as id from filestore.backend_mounts union all select s.name from filestore.snapshots s',
      'string',
    ],
    [
      'is grouped in sets',
      'select kind::text as id from filestore.nodes group by rollup (kind)',
      'string | null',
    ],
    ['is an aggregate', 'select max(id) as id from filestore.nodes', 'string | null'],
    ['comes from another view', 'select id from filestore.view_filestore_active_nodes', 'string | null'],
    [
      'comes from a scalar subquery',
      'select (select n.id from filestore.nodes n limit 1) as id',
      'string | null',
    ],
  ])('that %s', async (_what, query, type) => {
    expect((await view(query)).id).toBe(type);
  });
});
