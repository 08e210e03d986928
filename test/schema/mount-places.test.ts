import { describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest, withoutTriggers } from '../support/databases/test-database.ts';
import { insertMount as insertInto } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();
const insertMount = (columns: Record<string, unknown>) => insertInto(database(), columns);

const LOCAL = { backend_kind: 'local', root_path: '/srv/media' };
const S3 = { backend_kind: 's3', bucket: 'media-eu' };
const SERVER = { endpoint: 'https://s3.example:9000' };
const LONGEST = { endpoint: `https://${'e'.repeat(247)}`, bucket: 'b'.repeat(255), prefix: 'p'.repeat(512) };

type Place = Readonly<Record<string, string>>;

describe('a place', () => {
  test.each([
    ['a local directory', LOCAL],
    ['the root of the file system', { backend_kind: 'local', root_path: '/' }],
    [
      'a directory with spaces, quotes and dots in its name',
      { backend_kind: 'local', root_path: "/a b/.c/d..e/f'g" },
    ],
    ['a whole bucket', S3],
    ['a prefix of a bucket', { ...S3, prefix: 'photos/2024' }],
    ['a bucket of a server', { ...S3, endpoint: 'http://minio_1:9000' }],
    ['a bucket below the path of a server', { ...S3, endpoint: 'https://s3.example/storage/v1/s3' }],
    ['a bucket of an address', { ...S3, endpoint: 'http://[fd00::1]:9000' }],
    ['as long as a mount can be', { ...S3, ...LONGEST }],
  ])('may be %s', async (_, columns) => {
    await expect(insertMount(columns)).resolves.toMatchObject(columns);
  });

  test.each<[string, Place, string]>([
    ['local without root_path', { backend_kind: 'local' }, 'backend_mounts_place_check'],
    ['local with a bucket', { ...LOCAL, bucket: 'media-eu' }, 'backend_mounts_place_check'],
    ['local with a prefix', { ...LOCAL, prefix: 'photos' }, 'backend_mounts_place_check'],
    ['s3 without a bucket', { backend_kind: 's3' }, 'backend_mounts_place_check'],
    ['s3 with a root_path', { ...S3, root_path: '/srv' }, 'backend_mounts_place_check'],
    ['local with an endpoint', { ...LOCAL, endpoint: 'https://s3.example' }, 'backend_mounts_place_check'],
    ...[
      'minio.example:9000',
      'ftp://s3.example',
      'https://S3.example',
      'https://s3.example/',
      'https://s3.example.',
      'https://s3.example:443',
      'http://s3.example:80/path',
      'https://s3.example:09000',
      'https://s3.example/a/../b',
      'https://s3.example?x=1',
      'https://s3.example#x',
      'https://user@s3.example',
      'https://s3.example\n',
      `https://${'a'.repeat(255)}`,
    ].map((endpoint): [string, Place, string] => [
      `at ${endpoint}`,
      { ...S3, endpoint },
      'backend_mounts_endpoint_check',
    ]),
    ['relative', { backend_kind: 'local', root_path: 'srv/media' }, 'backend_mounts_root_path_check'],
    [
      'with a trailing slash',
      { backend_kind: 'local', root_path: '/srv/' },
      'backend_mounts_root_path_check',
    ],
    [
      'with a doubled slash',
      { backend_kind: 'local', root_path: '/srv//media' },
      'backend_mounts_root_path_check',
    ],
    [
      'with a . segment',
      { backend_kind: 'local', root_path: '/srv/./media' },
      'backend_mounts_root_path_check',
    ],
    ['with a .. segment', { backend_kind: 'local', root_path: '/srv/..' }, 'backend_mounts_root_path_check'],
    ['with a line break', { backend_kind: 'local', root_path: '/srv\n' }, 'backend_mounts_root_path_check'],
    ['a bucket with a slash', { backend_kind: 's3', bucket: 'media/eu' }, 'backend_mounts_bucket_check'],
    ['an empty prefix', { ...S3, prefix: '' }, 'backend_mounts_prefix_check'],
    ['a prefix with a leading slash', { ...S3, prefix: '/photos' }, 'backend_mounts_prefix_check'],
    ['a prefix with a trailing slash', { ...S3, prefix: 'photos/' }, 'backend_mounts_prefix_check'],
    ['of an unknown kind', { backend_kind: 'ftp', root_path: '/srv' }, 'backend_mounts_backend_kind_check'],
  ])('may not be %s', async (_, columns, constraint) => {
    await expect(insertMount(columns)).rejects.toMatchObject({ code: '23514', constraint });
  });

  const TAKEN = { code: '23P01', constraint: 'backend_mounts_place_excl' };
  const local = (root_path: string) => ({ backend_kind: 'local', root_path });

  test.each<[string, Place, Place]>([
    ['a directory', LOCAL, LOCAL],
    ['a directory and one inside it', local('/srv'), local('/srv/media/a')],
    ['the root of the file system and a directory', local('/'), local('/srv')],
    ['a bucket', S3, S3],
    ['a prefix of a bucket', { ...S3, prefix: 'photos' }, { ...S3, prefix: 'photos' }],
    ['a bucket and a prefix in it', S3, { ...S3, prefix: 'photos/2024' }],
    ['a prefix and one inside it', { ...S3, prefix: 'photos' }, { ...S3, prefix: 'photos/2024' }],
    ['a bucket of a server', { ...S3, ...SERVER }, { ...S3, ...SERVER }],
    ['a bucket of a server and a prefix in it', { ...S3, ...SERVER }, { ...S3, ...SERVER, prefix: 'photos' }],
  ])('cannot belong to two mounts: %s', async (_, first, second) => {
    for (const [taken, wanted] of [
      [first, second],
      [second, first],
    ] as const) {
      await insertMount(taken);
      await expect(insertMount({ ...wanted, mount_key: 'other' })).rejects.toMatchObject(TAKEN);
      await database().query('delete from filestore.backend_mounts');
    }
  });

  test('cannot change into a part of the place of another mount', async () => {
    await insertMount(LOCAL);
    await insertMount({ ...local('/elsewhere'), mount_key: 'other' });
    await expect(
      database().query(
        "update filestore.backend_mounts set root_path = '/srv/media/a' where mount_key = 'other'",
      ),
    ).rejects.toMatchObject(TAKEN);
  });

  test('is next to another one whose name begins with its name, or with the same name elsewhere', async () => {
    const places: readonly Place[] = [
      ...['/srv/o', '/srv/o-x', '/srv/o0', '/srv/o!', '/srv/oo', '/srv/p/o'].map(local),
      ...['o', 'o-x', 'o0', 'o!', 'oo', 'p/o'].map((prefix) => ({ ...S3, prefix })),
      ...['data', 'data-x', 'data.x'].map((bucket) => ({ ...S3, bucket })),
      { ...S3, bucket: 'data', ...SERVER },
      { ...S3, bucket: 'data', endpoint: `${SERVER.endpoint}0` },
      { ...S3, bucket: 'data', endpoint: `${SERVER.endpoint}/data` },
    ];
    for (const [index, place] of places.entries()) await insertMount({ ...place, mount_key: `m${index}` });
    expect(await database().query('select from filestore.backend_mounts')).toHaveLength(places.length);
  });

  test.each(['read committed', 'repeatable read', 'serializable'])(
    'belongs to one of two mounts that are inserted at once, one inside the other, at %s',
    async (level) => {
      const insert = (key: string, root: string) =>
        `insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('${key}', 'local', '${root}')`;
      const [first, second] = [await database().connect(), await database().connect()];
      for (const client of [first, second]) {
        await client.query(`begin isolation level ${level}`);
        await client.query('select from filestore.backend_mounts');
      }
      await first.query(insert('outer', '/srv/o'));
      const { waits, outcome } = await sendAndBlock(second, insert('inner', '/srv/o/inner'));
      expect(waits).toBe(true);
      await first.query('commit');
      expect(await outcome).toMatchObject({ ok: false, error: TAKEN });
    },
  );

  test('belongs to one mount without triggers, as when rows are replicated', async () => {
    await insertMount(local('/srv'));
    const replicated = withoutTriggers(database(), (client) =>
      client.query(
        "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('m', 'local', '/srv/o')",
      ),
    );
    await expect(replicated).rejects.toMatchObject(TAKEN);
  });

  test('may be long in many mounts', async () => {
    // Digests do not compress.
    await database().query(
      `insert into filestore.backend_mounts (mount_key, backend_kind, endpoint, bucket, prefix)
       select 'm' || g, 's3', $1, $2, left((select string_agg(md5(g || ' ' || h), '') from generate_series(1, 16) h), 512)
       from generate_series(1, 200) g`,
      [LONGEST.endpoint, LONGEST.bucket],
    );
    expect(await database().query('select from filestore.backend_mounts')).toHaveLength(200);
  });
});
