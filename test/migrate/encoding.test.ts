import pg from 'pg';
import { expect, inject, test } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { asAdmin, databaseForFile } from '../support/databases/test-database.ts';

const database = databaseForFile();

test.each(['LATIN1', 'WIN1251', 'EUC_JP', 'SQL_ASCII'])(
  'a database in %s is refused by the sentence that says what to create instead',
  async (encoding) => {
    const name = `${database().name}_${encoding.toLowerCase()}`;
    await asAdmin((admin) =>
      admin.query(`create database ${name} encoding '${encoding}' locale 'C' template template0`),
    );
    try {
      const run = runMigrations({ env: { DATABASE_URL: databaseUrl(inject('adminUrl'), name) } });
      await expect(run).rejects.toMatchObject({
        code: 'MIGRATION_FAILED',
        applied: [],
        message: expect.stringMatching(
          new RegExp(
            `the database is encoded in ${encoding}, but filestore needs UTF8.*create database .* encoding 'UTF8'`,
          ),
        ),
      });
    } finally {
      await asAdmin((admin) => admin.query(`drop database ${name}`));
    }
  },
);

test('a database in which I is not the capital of i finds the same secrets', async () => {
  const name = `${database().name}_turkish`;
  await asAdmin((admin) =>
    admin.query(
      `create database ${name} encoding 'UTF8' locale 'C' locale_provider icu icu_locale 'tr' template template0`,
    ),
  );
  try {
    const env = { DATABASE_URL: databaseUrl(inject('adminUrl'), name) };
    await runMigrations({ env });
    const client = new pg.Client(env.DATABASE_URL);
    await client.connect();
    const found = await client.query(
      'select filestore.find_secret($1) as api, filestore.find_secret($2) as signing, filestore.find_secret($3) as nothing',
      [{ API_KEY: 'hunter2-Zq9x' }, { line: 'SIGNING_KEY=hunter2-Zq9x' }, { SIZE: 'hunter2-Zq9x' }],
    );
    await client.end();
    expect(found.rows).toEqual([{ api: 'API_KEY', signing: 'line', nothing: null }]);
  } finally {
    await asAdmin((admin) => admin.query(`drop database ${name}`));
  }
});

test('a client in another encoding gets the hint of a refusal', async () => {
  const client = await database().connect();
  await client.query("set client_encoding = 'LATIN1'");
  await expect(client.query("select filestore.canonical_checksum('no checksum')")).rejects.toMatchObject({
    code: 'FS422',
    hint: expect.stringContaining('such as sha256:9f86...'),
  });
});

test('no function has a character that another encoding may lack', async () => {
  expect(
    await database().query(
      "select proname from pg_proc where pronamespace = 'filestore'::regnamespace and prosrc ~ '[^\\x01-\\x7f]'",
    ),
  ).toEqual([]);
});
