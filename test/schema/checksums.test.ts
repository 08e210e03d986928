import { createHash } from 'node:crypto';
import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let reader: Client;
let service: Client;
let mount: Mount;

beforeAll(async () => {
  mount = await createMount(database());
  [reader, service] = [await connectAs('reader'), await connectAs('service')];
});

async function canonical(checksum: string | null, algorithm?: string | null): Promise<string | null> {
  const { text } = await one(reader, 'select filestore.canonical_checksum($1, $2) as text', [
    checksum,
    algorithm,
  ]);
  return text;
}

const refused = (...parts: readonly string[]) => ({
  code: 'FS422',
  constraint: 'nodes_checksum_check',
  message: expect.stringMatching(new RegExp(parts.join('.*'))),
  hint: expect.stringMatching(/\w{3}/),
});

const digest = (algorithm: string) => createHash(algorithm).update('test').digest();
const SHA256 = digest('sha256');
const HEX = SHA256.toString('hex');
const CANONICAL = `sha256:${HEX}`;

describe.each(['md5', 'sha1', 'sha256', 'sha384', 'sha512'])('a digest of %s', (algorithm) => {
  const bytes = digest(algorithm);
  const expected = `${algorithm}:${bytes.toString('hex')}`;

  test.each([
    ['hexadecimal', bytes.toString('hex')],
    ['hexadecimal in upper case', bytes.toString('hex').toUpperCase()],
    ['base64', bytes.toString('base64')],
    ['base64 without padding', bytes.toString('base64').replace(/=+$/, '')],
    ['base64url', bytes.toString('base64url')],
  ])('in %s gets its algorithm from its length, an argument or a prefix', async (_, text) => {
    expect(await canonical(text)).toBe(expected);
    expect(await canonical(text, algorithm)).toBe(expected);
    expect(await canonical(`${algorithm.toUpperCase()}:${text}`)).toBe(expected);
  });
});

test.each([
  ['crc32', 4],
  ['crc32c', 4],
  ['crc64nvme', 8],
  ['sha224', 28],
  ['blake3', 32],
])('a digest of %s needs the name of its algorithm', async (algorithm, length) => {
  const bytes = Buffer.alloc(length, 'é+ÿ>');
  for (const text of [bytes.toString('hex'), bytes.toString('base64'), bytes.toString('base64url')]) {
    expect(await canonical(text, algorithm.toUpperCase())).toBe(`${algorithm}:${bytes.toString('hex')}`);
    expect(await canonical(`${algorithm}:${text}`)).toBe(`${algorithm}:${bytes.toString('hex')}`);
  }
});

test.each(['SHA256', 'sha-256', 'Sha_256'])('%s means sha256', async (name) => {
  expect(await canonical(`${name}:${HEX}`)).toBe(CANONICAL);
  expect(await canonical(HEX, name)).toBe(CANONICAL);
  expect(await canonical(CANONICAL, name)).toBe(CANONICAL);
});

test('a canonical checksum stays the same', async () => {
  expect(await canonical(CANONICAL)).toBe(CANONICAL);
});

test('a checksum of null stays null', async () => {
  expect(await canonical(null)).toBeNull();
  expect(await canonical(null, 'sha256')).toBeNull();
});

test('an unknown algorithm is accepted only as algorithm:hex', async () => {
  expect(await canonical('SHA3-256:00FF')).toBe('sha3-256:00ff');
  await expect(canonical('sha3-256:AP8=')).rejects.toMatchObject(refused('"sha3-256"'));
  await expect(canonical('00ff', 'sha3-256')).rejects.toMatchObject(refused('"sha3-256"'));
});

test.each([
  ['sha256:9f86d081', undefined, ['8 hexadecimal digits', 'sha256', '32 bytes', '64']],
  [HEX.slice(1), 'sha256', ['63 hexadecimal digits', 'sha256']],
  // Sixty-four hexadecimal digits are also 48 bytes of base64.
  [HEX, 'sha384', ['64 hexadecimal digits', 'sha384', '48 bytes']],
  [digest('md5').toString('base64'), 'sha256', ['16 bytes in base64', 'sha256', '32 bytes']],
  // Six characters of base64 for four bytes, or three bytes in hexadecimal.
  ['abcdef', 'crc32', ['6 hexadecimal digits', 'crc32']],
])('%j as %j is refused for its length', async (checksum, algorithm, parts) => {
  await expect(canonical(checksum, algorithm)).rejects.toMatchObject(refused(...parts));
});

test.each(['00112233', '0011223344556677', 'AAAAAA==', HEX.slice(1), digest('sha224').toString('base64')])(
  '%j is refused without an algorithm, which its length does not determine',
  async (checksum) => {
    await expect(canonical(checksum)).rejects.toMatchObject(
      refused(checksum, 'the algorithm cannot be derived'),
    );
  },
);

test('an algorithm that contradicts the prefix is refused', async () => {
  await expect(canonical(CANONICAL, 'md5')).rejects.toMatchObject(refused('sha256', 'not of md5'));
  await expect(canonical(CANONICAL, 'sha3-256')).rejects.toMatchObject(refused('sha256', 'sha3-256'));
});

test.each([
  '',
  'sha256:',
  `sha256: ${HEX}`,
  `"${HEX}"`,
  `${HEX}\n`,
  'sha256:zz',
  'sha256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCg',
  'sha256:n4bQgYhMfWWaL-qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=',
  'sha256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg==',
  'sha256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgh=',
  `${digest('md5').toString('hex')}-3`,
  // This has the length of base64url of sha256.
  `${digest('sha1').toString('hex')}-12`,
  `${SHA256.toString('base64')}-3`,
])('%j is refused, since it is not a digest', async (checksum) => {
  await expect(canonical(checksum)).rejects.toMatchObject(refused('checksum'));
});

test.each([`:${HEX}`, `sha 256:${HEX}`, `a\nb:${HEX}`, `-:${HEX}`])(
  '%j is refused, since its algorithm is not a valid name',
  async (checksum) => {
    await expect(canonical(checksum)).rejects.toMatchObject(refused('not a valid name'));
    await expect(canonical(checksum)).rejects.not.toMatchObject({ message: expect.stringContaining('\n') });
  },
);

test('a checksum of more than 1024 bytes is refused', async () => {
  expect(await canonical(`x:${'a'.repeat(1022)}`)).toHaveLength(1024);
  await expect(canonical(`x:${'a'.repeat(1023)}`)).rejects.toMatchObject(refused('1025 bytes'));
});

test('the table accepts every checksum that it returns', async () => {
  for (const [index, text] of [CANONICAL, 'sha3-256:00ff', `x:${'a'.repeat(1022)}`].entries()) {
    await one(
      service,
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, checksum)
       values ($1, $2, $3, 'file', filestore.canonical_checksum($4)) returning id`,
      [mount.id, mount.rootId, `accepted-${index}`, text],
    );
  }
});

test('create_node and find_by_checksum take a checksum in any form', async () => {
  const sum = createHash('sha256').update('another').digest();
  const forms = [sum.toString('hex').toUpperCase(), sum.toString('base64'), `SHA-256:${sum.toString('hex')}`];
  const ids: string[] = [];
  for (const [index, form] of forms.entries()) {
    const node = await one(
      service,
      'select id, checksum from filestore.create_node($1, $2, checksum => $3)',
      [mount.rootId, `found-${index}`, form],
    );
    expect(node.checksum).toBe(`sha256:${sum.toString('hex')}`);
    ids.push(node.id);
  }
  for (const form of forms) {
    const { rows } = await reader.query('select id from filestore.find_by_checksum($1)', [form]);
    expect(rows.map(({ id }) => id)).toEqual(ids);
  }
});

test('create_node and find_by_checksum refuse an invalid checksum', async () => {
  const short = 'sha256:9f86d081';
  await expect(
    service.query("select filestore.create_node($1, 'refused', checksum => $2)", [mount.rootId, short]),
  ).rejects.toMatchObject(refused('sha256'));
  await expect(reader.query('select filestore.find_by_checksum($1)', [short])).rejects.toMatchObject(
    refused('sha256'),
  );
});
