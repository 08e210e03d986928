import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sampleCalls } from '../../dev/check/gates/sample-calls.ts';
import { readSources, type Sources } from '../../dev/sources/sources.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { linesOf } from '../support/packages/spoiled-package.ts';

const FUNCTIONS = 'migrations/fixtures/functions';
const database = databaseForEachTest();
let client: Client;
let sources: Sources;
beforeEach(async () => {
  // Only a superuser may let the server count calls.
  client = await database().connectAsSuperuser();
  sources = await readSources(PACKAGE_ROOT, false);
});
const check = async () => linesOf(sampleCalls.evaluate({ sources, client }));

describe('the sample calls', () => {
  test('report the line of a trigger function that reads a dropped column', async () => {
    await client.query('alter table filestore.backend_mounts drop column contact');
    const text = sources.fixtures.find(({ file }) => file === `${FUNCTIONS}/prepare_mount.sql`)?.text ?? '';
    const [problem = '', ...others] = await check();
    expect(others).toEqual([]);
    const [, line, what] = /^\S+prepare_mount\.sql:(\d+) (.*)$/s.exec(problem) ?? [];
    expect(
      text
        .split('\n')
        .slice(0, Number(line) + 10)
        .join('\n'),
    ).toContain('new.contact');
    expect(what).toMatch(
      /^fails: record "new" has no field "contact".*called at migrations\/sample-rows\.sql:\d+$/s,
    );
  });

  test('report a function that fails when it is called', async () => {
    const definition = "select pg_get_functiondef('filestore.directory_totals(bigint)'::regprocedure) as sql";
    const { rows } = await client.query<{ sql: string }>(definition);
    await client.query(rows[0]?.sql.replaceAll('filestore.rollup_deltas', 'filestore.missing') ?? '');
    const found = await check();
    expect(found.length).toBeGreaterThan(0);
    for (const line of found) {
      expect(line).toMatch(
        /^migrations\/fixtures\/functions\/directory_totals\.sql:\d+ fails: relation "filestore\.missing" does not/,
      );
      expect(line).toMatch(/called at migrations\/sample-calls\.sql:\d+$/);
    }
  });

  test('report a new function that none of them runs, unless it is in SQL, which the server parses', async () => {
    await client.query(
      `create function filestore.added() returns int language plpgsql as 'begin return missing; end';
       create function filestore.parsed() returns int language sql return 1`,
    );
    expect(await check()).toEqual([expect.stringContaining('filestore.added is not run by ')]);
  });
});
