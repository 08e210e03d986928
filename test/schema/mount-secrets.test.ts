import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { SWITCH_OFF_CONFORMING_STRINGS } from '../support/databases/database-settings.ts';
import { databaseForFile, withoutTriggers } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { one } from '../support/rows/nodes.ts';

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

/** A setting, and how the error names it. */
const SECRETS: readonly (readonly [object, string])[] = [
  // The name says so.
  [{ password: SECRET }, 'password'],
  [{ pwd: SECRET }, 'pwd'],
  [{ pass: SECRET }, 'pass'],
  [{ passphrase: 'correct horse battery' }, 'passphrase'],
  [{ DB_PASSWORD: SECRET }, 'DB_PASSWORD'],
  [{ dbPassword2: SECRET }, 'dbPassword2'],
  [{ dbpassword: SECRET }, 'dbpassword'],
  [{ password: 20261130 }, 'password'],
  [{ AWSSecretKey: SECRET }, 'AWSSecretKey'],
  [{ signing_key: SECRET }, 'signing_key'],
  [{ 'encryption-key': SECRET }, 'encryption-key'],
  [{ accountKey: SECRET }, 'accountKey'],
  [{ clientSecret: SECRET }, 'clientSecret'],
  [{ refreshToken: SECRET }, 'refreshToken'],
  [{ token: '0d5f1c9e-2f64-4b7e-9d41-7a3b1c5e8f20' }, 'token'],
  // Words that may follow.
  [{ passwordValue: SECRET }, 'passwordValue'],
  [{ secret_text: SECRET }, 'secret_text'],
  [{ apiKeyV2: SECRET }, 'apiKeyV2'],
  // A nested value has the name of what it is in.
  [{ session: { token: SECRET } }, 'session.token'],
  [{ a: { b: [{ c: { secretAccessKey: SECRET } }] } }, 'a.b.0.c.secretAccessKey'],
  [{ apiKeys: [SECRET] }, 'apiKeys.0'],
  [{ password: { value: SECRET } }, 'password.value'],
  [{ db: { password: { current: [SECRET] } } }, 'db.password.current.0'],
  [{ env: [{ name: 'DB_PASSWORD', value: SECRET }] }, 'env.0.value'],
  [{ Key: 'apiKey', Value: SECRET }, 'Value'],
  // A text contains one.
  [{ query: `client_secret=${SECRET}` }, 'query'],
  [{ dsn: `host=h user=u password=${SECRET}` }, 'dsn'],
  [{ env: ['HOME=/x', `PGPASSWORD=${SECRET}`] }, 'env.1'],
  [{ account: `AccountName=me;AccountKey=${SECRET}` }, 'account'],
  [{ text: `{"password": "${SECRET}"}` }, 'text'],
  [{ text: `{'password':'${SECRET}'}` }, 'text'],
  [{ text: `user: u\npassword: ${SECRET}\n` }, 'text'],
  [{ text: `[db]\npassword = ${SECRET}` }, 'text'],
  [{ text: `<password>${SECRET}</password>` }, 'text'],
  [{ text: `secret_key = "${SECRET}"` }, 'text'],
  [{ url: `https://s3.example/?region=eu&password=${SECRET}` }, 'url'],
  [{ url: `https://acc.example.net/c?sv=1&sig=${SECRET}` }, 'url'],
  [{ url: `https://s3.example/k?X-Amz-Expires=60&X-Amz-Signature=${SECRET}` }, 'url'],
  // It cannot be anything else.
  [{ endpoint: `https://user:${SECRET}@s3.example` }, 'endpoint'],
  [{ endpoint: `https://:${SECRET}@s3.example` }, 'endpoint'],
  [{ endpoint: `//user:${SECRET}@host/db` }, 'endpoint'],
  [{ dsn: `user:${SECRET}@tcp(db:3306)/files` }, 'dsn'],
  [{ note: [`-----BEGIN RSA PRIVATE KEY-----\n${SECRET}`] }, 'note.0'],
  [{ note: `-----BEGIN PRIVATE KEY-----\n${SECRET}` }, 'note'],
  [{ note: `-----BEGIN PGP PRIVATE KEY BLOCK-----\n${SECRET}` }, 'note'],
  [{ auth_header: `Bearer ${SECRET}` }, 'auth_header'],
  [{ x: `Bearer abc.${SECRET}.ghi` }, 'x'],
  [{ headers: { Authorization: 'Basic dXNlcjpwYXNz' } }, 'headers.Authorization'],
  [{ line: `curl -H 'Authorization: Bearer ${SECRET}'` }, 'line'],
  [{ x: 'ghp_0123456789abcdefghij0123456789abcdef' }, 'x'],
  [{ [`postgres://user:${SECRET}@host/db`]: true }, '***'],
  [{ hosts: { [`postgres://user:${SECRET}@host/db`]: { password: SECRET } } }, 'hosts.***'],
];

describe('a setting is refused as a secret', () => {
  test('also by the fast test before the thorough one', async () => {
    const superuser = await database().connectAsSuperuser();
    const fast = 'select c from unnest($1::jsonb[]) c where not filestore.has_secret(c)';
    const { rows } = await superuser.query(fast, [SECRETS.map(([config]) => config)]);
    expect(rows).toEqual([]);
    await superuser.end();
  });

  test.each(SECRETS)('%j, and not quoted', async (config, path) => {
    const error = await insert(config).catch((caught) => caught);
    expect(error).toMatchObject({ ...REFUSED, message: `config contains a secret: ${path}` });
    expect(fieldsOf(error)).not.toContain(SECRET);
  });

  test('with any setting of standard_conforming_strings', async () => {
    await service.query(SWITCH_OFF_CONFORMING_STRINGS);
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
  // The name is that of something else.
  { tokenBucketRate: 10, maxTokens: 4096, tokens: 5, accessToken_ttl: 5 },
  {
    hasPasswordPolicy: true,
    requirePassword: 'twice',
    usesClientSecret: 'both',
    passwordless: 'link',
  },
  {
    passwordFile: 'pw',
    secretName: 'media',
    apiKeyHeader: 'X-Key',
    tokenType: 'opaque-v1',
    nextPageToken: 'a1',
  },
  { accessKeyId: 'AKIAIOSFODNN7EXAMPLE', accessKey: 'AKIAIOSFODNN7EXAMPLE' },
  { partitionKey: 'tenant', storageKey: 'a/b', serviceKey: 'media', sessionKey: 'user_id', keyPrefix: 'a' },
  { k8sSecret: 'media', imagePullSecret: 'regcred', secretKeyRef: { name: 'media', key: 'password' } },
  { auth: 'iam', authorization: 'rbac', authMode: 'Basic auth', credentials: 'instance-profile' },
  { bypass: 'x', compass: 'x', secretary: 'x', keyboard: 'x', signature: 'v4' },
  { auth: { token: { issuer: 'sts', ttl: '5m' }, password: { policy: 'strict' } } },
  // The value is no secret.
  { password: null, token: '', auth: false, secret: true, apiKey: 'required', clientSecret: 'None' },
  { password: '<redacted>', token: '***', secret: '$MEDIA_SECRET', apiKey: '{{ key }}', pwd: 'xxxxx' },
  {
    password: 'DB_PASSWORD',
    token: '/run/secrets/t',
    secret: 'vault:kv/media',
    apiKey: 'keys/media',
    pwd: '~/x',
  },
  { secret: 'media-s3', encryptionKey: 'alias/media', masterKey: 'eu', token: 'see the runbook' },
  // The text contains none.
  {
    endpoint: 'https://s3.example:9000/bucket@eu:1',
    minio: 'http://minio:9000/@data',
    v6: 'http://[::1]:9/a@b',
  },
  { repository: 'git@github.com:a/b', contact: 'mailto:ops@example.org', url: 'https://user@host/' },
  { url: 'postgres://user:<password>@host/db', other: 'https://user:***@host/?token=<token>&sig=$SIG' },
  { allow: ['token:read', 'secret:write'], hint: 'password=see the runbook' },
  { certificate: '-----BEGIN CERTIFICATE-----', header: 'Authorization: Bearer token' },
  {
    note: 'password=<redacted>',
    last: 'HTTP 403: InvalidToken: token = expired',
    text: '{"token": "expired"}',
  },
])('%j is not refused as a secret', async (config) => {
  const { id } = await insert(config);
  expect(await one(service, 'select config from filestore.backend_mounts where id = $1', [id])).toEqual({
    config,
  });
});

test.each([
  ['state_reason', 'cannot connect to postgres://user:hunter2@host with password=hunter2'],
  ['state_reason', 'HTTP 403: InvalidToken: token = expired'],
  ['description', 'Rotate token= monthly'],
  ['description', 'Password: 1Password'],
  ['contact', 'team:storage@example.com'],
])('%s may be %j', async (column, value) => {
  const { id } = await insert({});
  await service.query(`update filestore.backend_mounts set ${column} = $2 where id = $1`, [id, value]);
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
      message: 'config has more than 65536 bytes',
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

  test.each([
    ['a long key above many values', "jsonb_build_object(repeat('k', 30000), jsonb_agg('aaaaaaaa'::text))"],
    [
      'many settings below the name of a secret',
      "jsonb_build_object('password', jsonb_object_agg('f' || i, 0))",
    ],
    ['many values, nested', "(repeat('{\"a\":', 31) || json_agg('abc'::text) || repeat('}', 31))::jsonb"],
    ['many assignments', "jsonb_build_object('k', string_agg('token=<a', ' '))"],
  ])('of 64 KiB need no temporary file: %s', async (_, value) => {
    // Only a superuser may set temp_file_limit.
    const superuser = await database().connectAsSuperuser();
    const { text } = await one(superuser, `select (${value})::text as text from generate_series(1, 5000) i`);
    expect(text.length).toBeGreaterThan(30_000);
    await superuser.query("set temp_file_limit = 0; set work_mem = '64kB'");
    expect(await one(superuser, 'select filestore.find_secret($1) as secret', [text])).toEqual({
      secret: null,
    });
    await superuser.end();
  });
});
