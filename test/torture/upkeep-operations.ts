import { anyMount } from './known-nodes.ts';
import type { Ending } from './recorder.ts';
import type { Operation } from './torture-operation.ts';

export const FOLD: Operation = {
  kind: 'fold_rollups',
  weight: 3,
  journalled: false,
  expected: [],
  plan: (_, random) => ({
    mountId: null,
    parameters: {},
    work: (client) => client.query('select filestore.fold_rollups($1)', [random.between(1, 300)]),
  }),
};

const PRUNE_AFTER_MS = 10_000;

/** Operations that an operator runs from time to time; here they run all the time. */
export const UPKEEP: readonly Operation[] = [
  { ...FOLD, weight: 6 },
  {
    kind: 'purge_deleted',
    weight: 4,
    journalled: true,
    expected: [],
    plan(_, random) {
      const parameters = { olderThan: random.chance(0.2) ? '0' : '3 seconds', batch: random.between(1, 50) };
      return {
        mountId: null,
        parameters,
        isFirstWrite: true,
        async work(client) {
          const { rows } = await client.query('select filestore.purge_deleted($1, $2) as purged', [
            parameters.olderThan,
            parameters.batch,
          ]);
          return rows[0];
        },
      };
    },
  },
  {
    kind: 'expire_commands',
    weight: 1,
    journalled: false,
    expected: [],
    plan: () => ({
      mountId: null,
      parameters: {},
      async work(client, effects) {
        const { rows } = await client.query<Ending & { id: string }>(
          `select id, status, result, error, completed_at as "completedAt" from filestore.expire_commands('5 seconds')`,
        );
        for (const { id, ...ending } of rows) effects.ended(id, ending);
      },
    }),
  },
  {
    kind: 'prune_journal',
    weight: 1,
    journalled: false,
    expected: [],
    plan: () => ({
      mountId: null,
      parameters: {},
      async work(client, effects) {
        try {
          await client.query(`select filestore.prune_journal($1 * interval '1 ms', 500)`, [PRUNE_AFTER_MS]);
        } finally {
          effects.pruned(new Date(Date.now() + 1 - PRUNE_AFTER_MS));
        }
      },
    }),
  },
  {
    kind: 'prune_history',
    weight: 1,
    journalled: false,
    expected: [],
    plan: (_, random) => ({
      mountId: null,
      parameters: {},
      work: (client) =>
        client.query("select filestore.prune_history('3 seconds', $1, $2)", [
          random.between(0, 3),
          random.between(1, 50),
        ]),
    }),
  },
  {
    kind: 'recount_rollups',
    weight: 1,
    journalled: false,
    expected: [],
    plan(scene, random) {
      const mount = anyMount(scene, random);
      return {
        mountId: mount.id,
        parameters: {},
        async work(client, effects) {
          const { rows } = await client.query('select filestore.recount_rollups($1) as wrong', [mount.key]);
          const wrong = rows[0]?.wrong;
          effects.reading(
            wrong === '0' ? undefined : `recount_rollups mended ${wrong} directories of ${mount.key}`,
          );
        },
      };
    },
  },
  reading('audit_rollups', 5, 'select * from filestore.audit_rollups($1) limit 3', true),
  reading('check_integrity', 1, 'select * from filestore.check_integrity() limit 3', false),
];

/** A reading that returns problems, and must return none at any moment. */
function reading(kind: string, weight: number, sql: string, ofMount: boolean): Operation {
  return {
    kind,
    weight,
    journalled: false,
    expected: [],
    plan(scene, random) {
      const mount = anyMount(scene, random);
      return {
        mountId: mount.id,
        parameters: {},
        async work(client, effects) {
          const { rows } = await client.query(sql, ofMount ? [mount.key] : []);
          effects.reading(rows.length === 0 ? undefined : `${kind}: ${JSON.stringify(rows)}`);
        },
      };
    },
  };
}
