import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { levelsForFile } from '../support/levels.ts';
import { one } from '../support/nodes.ts';
import { databaseForFile, withoutTriggers } from '../support/test-database.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mounts = 0;

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(() => {
  mounts += 1;
});

const SECRET = 'hunter2-Zq9x';

const INSERT = `insert into filestore.backend_mounts (mount_key, backend_kind, root_path, config)
  values ($1, 'local', $2, $3) returning id`;
const insert = (config: unknown) =>
  one(service, INSERT, [`m${mounts}`, `/m/${mounts}`, JSON.stringify(config)]);

const REFUSED = {
  code: 'FS422',
  constraint: 'backend_mounts_secret_check',
  hint: expect.stringContaining('credentials_ref'),
};

/** All fields of an error, as a client may log them. */
const fieldsOf = (error: object) => JSON.stringify({ ...error, message: (error as Error).message });

describe('a setting is refused as a secret', () => {
  test.each([
    [{ pwd: SECRET }, 'pwd'],
    [{ pass: SECRET }, 'pass'],
    [{ auth: SECRET }, 'auth'],
    [{ Authorization: SECRET }, 'Authorization'],
    [{ password: SECRET }, 'password'],
    [{ DB_PASSWORD: SECRET }, 'DB_PASSWORD'],
    [{ dbPassword2: SECRET }, 'dbPassword2'],
    [{ AWSSecretKey: SECRET }, 'AWSSecretKey'],
    [{ HTTPAuthorization: SECRET }, 'HTTPAuthorization'],
    [{ [`postgres://user:${SECRET}@host/db`]: true }, '***'],
    [{ hosts: { [`postgres://user:${SECRET}@host/db`]: { password: SECRET } } }, 'hosts.***'],
    [{ line: `host=db password = ${SECRET}` }, 'line'],
    [{ query: `client_secret=${SECRET}` }, 'query'],
    [{ text: `{"password": "${SECRET}"}` }, 'text'],
    [{ signing_key: SECRET }, 'signing_key'],
    [{ 'encryption-key': SECRET }, 'encryption-key'],
    [{ accountKey: SECRET }, 'accountKey'],
    [{ apiKeys: [SECRET] }, 'apiKeys'],
    [{ connectionString: SECRET }, 'connectionString'],
    [{ dsn: SECRET }, 'dsn'],
    [{ passphrase: SECRET }, 'passphrase'],
    [{ session: { token: SECRET } }, 'session.token'],
    [{ credentials: { user: SECRET } }, 'credentials'],
    [{ a: { b: [{ c: { secretAccessKey: SECRET } }] } }, 'a.b.0.c.secretAccessKey'],
    [{ endpoint: `https://user:${SECRET}@s3.example` }, 'endpoint'],
    [{ endpoint: `https://:${SECRET}@s3.example` }, 'endpoint'],
    [{ url: `https://s3.example/?region=eu&password=${SECRET}` }, 'url'],
    [{ account: `AccountName=me;AccountKey=${SECRET}` }, 'account'],
    [{ note: [`-----BEGIN RSA PRIVATE KEY-----\n${SECRET}`] }, 'note.0'],
    [{ note: `-----BEGIN PRIVATE KEY-----\n${SECRET}` }, 'note'],
  ])('%j, and not quoted', async (config, path) => {
    const error = await insert(config).catch((caught) => caught);
    expect(error).toMatchObject({ ...REFUSED, message: `config contains a secret: ${path}` });
    expect(fieldsOf(error)).not.toContain(SECRET);
  });

  test('with any setting of standard_conforming_strings', async () => {
    await service.query('set standard_conforming_strings = off');
    try {
      await expect(insert({ dbPassword: SECRET })).rejects.toMatchObject(REFUSED);
    } finally {
      await service.query('reset standard_conforming_strings');
    }
  });

  test.each([
    ['access_policy', JSON.stringify({ allow: [{ token: SECRET }] })],
    ['credentials_ref', `postgres://user:${SECRET}@host/db`],
  ])('in %s, also by an update', async (column, value) => {
    const { id } = await insert({});
    const error = await service
      .query(`update filestore.backend_mounts set ${column} = $2 where id = $1`, [id, value])
      .catch((caught) => caught);
    expect(error).toMatchObject({ ...REFUSED, message: expect.stringContaining(column) });
    expect(fieldsOf(error)).not.toContain(SECRET);
  });
});

test.each([
  { tokenBucketRate: 10 },
  { hasPasswordPolicy: true },
  { accessKeyId: 'AKIAIOSFODNN7EXAMPLE' },
  { passwordFile: '/run/secrets/s3' },
  { secretName: 's3-media' },
  { authMode: 'iam' },
  { partitionKey: 'tenant' },
  { keyPrefix: 'a' },
  { password: null, token: '', auth: false },
  { endpoint: 'https://s3.example:9000/bucket@eu:1' },
  { contact: 'mailto:ops@example.org' },
  { certificate: '-----BEGIN CERTIFICATE-----' },
])('%j is not refused as a secret', async (config) => {
  const { id } = await insert(config);
  expect(await one(service, 'select config from filestore.backend_mounts where id = $1', [id])).toEqual({
    config,
  });
});

describe('settings', () => {
  const nested = (levels: number) => `${'{"a": '.repeat(levels)}1${'}'.repeat(levels)}`;

  test('of 6 000 levels in 42 KB are refused by their depth', async () => {
    expect(Buffer.byteLength(nested(6000))).toBeLessThan(65536);
    await expect(service.query(INSERT, [`m${mounts}`, `/m/${mounts}`, nested(6000)])).rejects.toMatchObject({
      code: 'FS422',
      constraint: 'backend_mounts_settings_depth_check',
      message: expect.stringContaining('32 levels'),
      hint: expect.any(String),
    });
  });

  test('may have 32 levels, but not 33', async () => {
    await service.query(INSERT, [`m${mounts}`, `/m/${mounts}`, nested(32)]);
    await expect(service.query(INSERT, [`n${mounts}`, `/n/${mounts}`, nested(33)])).rejects.toMatchObject({
      constraint: 'backend_mounts_settings_depth_check',
    });
  });

  test('have at most 64 KiB', async () => {
    await expect(insert({ a: 'x'.repeat(65_536) })).rejects.toMatchObject({
      code: 'FS422',
      constraint: 'backend_mounts_settings_size_check',
      message: expect.stringMatching(/config has \d+ bytes/),
    });
  });

  test('that do not change are not checked again', async () => {
    const { id } = await insert({});
    await withoutTriggers(database(), (client) =>
      client.query('update filestore.backend_mounts set config = $2 where id = $1', [
        id,
        { password: SECRET },
      ]),
    );
    expect(
      await one(
        service,
        "update filestore.backend_mounts set state = 'offline', config = config where id = $1 returning version",
        [id],
      ),
    ).toEqual({ version: 2 });
    await expect(
      service.query(
        `update filestore.backend_mounts set config = config || '{"region": "eu"}' where id = $1`,
        [id],
      ),
    ).rejects.toMatchObject(REFUSED);
  });
});
