import pg from 'pg';
import { expect, test } from 'vitest';
import { copyPackage } from '../../harness/package-copy.ts';
import { paintFor, showPaint } from '../../src/cli/paint.ts';
import { assertMigrated, runMigrations } from '../../src/index.ts';
import { MIGRATION_LOCK_KEY } from '../../src/session/lock-holder.ts';
import { printableLines } from '../../src/text.ts';
import { type CliResult, runCli } from '../support/command-line/command-line.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { type LoginRole, rolesForEachTest } from '../support/roles/roles.ts';

const database = databaseForEachTest();
const createRole = rolesForEachTest(database);

/** A forged result, an erased screen, and a C1 control character that some terminals execute. */
const HOSTILE = '\nDone: 99\u001b[2J\u009b1m';
const QUOTED = pg.escapeIdentifier(`x${HOSTILE}`);
const LITERAL = pg.escapeLiteral(`x${HOSTILE}`);
const SHOWN = 'Done: 99\\u001b[2J\\u009b1m';

/** Without the line feed from PostgreSQL 19 on, which refuses it in the name of a role. */
async function createHostileRole(): Promise<LoginRole> {
  const [server] = await database().query("select current_setting('server_version_num')::integer as version");
  return createRole(server?.version < 190000 ? HOSTILE : HOSTILE.trimStart());
}

const env = (settings = {}) => ({ DATABASE_URL: database().url, ...settings });

function expectHarmless({ stdout, stderr }: Pick<CliResult, 'stdout' | 'stderr'>): void {
  const text = `${stdout}\n${stderr}`;
  expect(text).toContain(SHOWN);
  expect(text).not.toMatch(/^Done: 99/m);
  // Line feeds and tabs are the only control characters.
  expect(text).not.toMatch(/[^\P{Cc}\n\t]/u);
}

test('a role that holds the lock cannot forge output of status and migrate, or of a logger', async () => {
  const role = await createHostileRole();
  const client = await role.connect();
  await client.query(`select pg_catalog.pg_advisory_lock(${MIGRATION_LOCK_KEY})`);
  expectHarmless(await runCli(['status'], { env: env() }));
  const copy = copyPackage();
  copy.addMigration('later', 'select 1;');
  const options = { folder: copy.folder, env: env({ FILESTORE_MIGRATION_LOCK_WAIT_MS: '300' }) };
  try {
    expectHarmless(await runCli(['migrate'], options));
  } finally {
    copy.remove();
  }
  await database().query('drop schema filestore, graphile_migrate cascade');
  const lines: string[] = [];
  const logger = { info: (line: string) => lines.push(line), warn: (line: string) => lines.push(line) };
  const running = runMigrations({ env: env(), settings: { lockWaitMs: 300 }, logger });
  await expect(running).rejects.toMatchObject({ message: expect.stringContaining(SHOWN) });
  expectHarmless({ stdout: lines.join('\n'), stderr: '' });
});

test.each([
  ['a role', `grant select on filestore.nodes to ${QUOTED}`],
  ['a table', `create table filestore.${QUOTED} ()`],
  ['a default', `alter table filestore.nodes alter column name set default ${LITERAL}`],
])('the name of %s cannot forge output of verify', async (what, sql) => {
  if (what === 'a role') {
    const role = await createHostileRole();
    await database().query(sql.replace(QUOTED, role.quotedName));
  } else await database().query(sql);
  expectHarmless(await runCli(['verify'], { env: env() }));
});

test('a name in the history cannot forge output of status', async () => {
  await database().query(
    `update graphile_migrate.migrations set filename = ${LITERAL}
     where filename = (select max(filename) from graphile_migrate.migrations)`,
  );
  const { stdout, stderr } = await runCli(['status'], { env: env() });
  expectHarmless({ stdout, stderr });
});

test('a name in the history cannot forge a message for programs', async () => {
  await database().query(
    `update graphile_migrate.migrations set filename = ${LITERAL}
     where filename = (select max(filename) from graphile_migrate.migrations)`,
  );
  const options = { connectionString: database().url };
  await expect(assertMigrated(options)).rejects.toThrow(SHOWN);
  await expect(assertMigrated(options)).rejects.not.toThrow(/[^\P{Cc}]/u);
});

test('only the styles of this package reach a terminal as styles', () => {
  const line = `${paintFor(true, {}).good('current')} x${HOSTILE}\u001b[32mOK`;
  expect(showPaint(printableLines(line))).toBe(`\u001b[32mcurrent\u001b[39m x\n  ${SHOWN}\\u001b[32mOK`);
});

test.each([
  ['a warning', `do $$ begin raise warning using message = ${LITERAL}; end $$;`],
  ['an error', `do $$ begin raise exception using message = ${LITERAL}, hint = ${LITERAL}; end $$;`],
])('%s of the server cannot forge output of migrate', async (_, sql) => {
  const copy = copyPackage();
  copy.addMigration('later', sql);
  try {
    expectHarmless(await runCli(['migrate'], { folder: copy.folder, env: env() }));
  } finally {
    copy.remove();
  }
});
