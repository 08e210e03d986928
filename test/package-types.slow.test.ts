import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { databaseForEachTest } from './support/databases/test-database.ts';
import { packedServiceForFile } from './support/packages/packed-service.ts';

const database = databaseForEachTest('empty');
const service = packedServiceForFile();

describe('the packed package', () => {
  test('has types that a strict service compiles against', async () => {
    const errors = await service().compile(
      `import { getPool, type MigrationReport, MigrationFailedError, runMigrations } from '@apphub/filestore';
       export const report: Promise<MigrationReport> = runMigrations({ onEvent: (event) => console.log(event.type) });
       export const statement = (error: MigrationFailedError): number | null => error.place?.statement ?? null;
       export const max: number | undefined = getPool().options.max;
       // @ts-expect-error the report is read-only
       report.then((value) => { value.alreadyApplied = 1; });`,
    );
    expect(errors).toBe('');
  });

  test('has a type guard for reasons of refusals', async () => {
    const errors = await service().compile(
      `import { isRefusal, REFUSAL_REASONS, type RefusalReason } from '@apphub/filestore/sql';
       export const first: RefusalReason | undefined = REFUSAL_REASONS[0];
       export const reason = (error: unknown): 'nodes_stale' | undefined =>
         isRefusal(error, 'nodes_stale') ? error.constraint : undefined;
       // @ts-expect-error there is no such reason
       isRefusal(null, 'nodes_unknown');`,
    );
    expect(errors).toBe('');
  });

  test('has types of its rows for a service that queries', async () => {
    const errors = await service().compile(
      `import { withConnection } from '@apphub/filestore';
       import type { ActiveNodeRow, NodeInsert, NodeRow, NodeUpdate } from '@apphub/filestore/rows';
       export const find = (path: string): Promise<readonly ActiveNodeRow[]> => withConnection(async (client) =>
         (await client.query<ActiveNodeRow>('select * from filestore.view_filestore_active_nodes where path = $1', [path])).rows);
       export const insert: NodeInsert = { backend_mount_id: 1n, parent_id: '2', name: 'a', kind: 'file' };
       export const update: NodeUpdate = { size_bytes: 7n, checksum: null };
       export const size = (row: NodeRow): bigint => BigInt(row.size_bytes);
       export const days = (row: NodeRow): number => row.deleted_at?.getUTCDate() ?? 0;
       // @ts-expect-error a kind is one of two
       export const link: NodeInsert = { backend_mount_id: 1, name: 'a', kind: 'link' };
       // @ts-expect-error the database counts ids
       export const numbered: NodeInsert = { id: '1', backend_mount_id: 1, name: 'a', kind: 'file' };
       // @ts-expect-error a file need not have a checksum
       export const checksum = (row: NodeRow): string => row.checksum;`,
    );
    expect(errors).toBe('');
  });

  test('has typed calls that take a pool or a client, and refuse wrong arguments', async () => {
    const errors = await service().compile(
      `import { getPool, withTransaction } from '@apphub/filestore';
       import type { JournalEntryRow, NodeRow } from '@apphub/filestore/rows';
       import { beginCommand, createNode, foldRollups, listDirectory, nodeByPath, nodeLocation, type SqlClient } from '@apphub/filestore/sql';
       import pg from 'pg';
       export const clients: readonly SqlClient[] = [new pg.Client(), new pg.Pool(), getPool()];
       const client = new pg.Client();
       const parentId = 1n;
       export const node: NodeRow = await createNode(client, { parentId, name: 'a', kind: 'file', checksum: undefined });
       export const inside: NodeRow = await withTransaction((own) => createNode(own, { parentId, name: 'a' }));
       export const found: NodeRow | undefined = await nodeByPath(client, { mountKey: 'media', path: 'a' });
       export const nodes: readonly NodeRow[] = await listDirectory(client, { directoryId: node.id });
       export const begun: { is_new: boolean; entry: JournalEntryRow } = await beginCommand(client, { command: 'a', parameters: { a: [1] } });
       export const folded: number = await foldRollups(client);
       // @ts-expect-error an argument of that name does not exist
       await createNode(client, { parentId, name: 'a', sizeByte: 1 });
       // @ts-expect-error an argument is missing
       await createNode(client, { name: 'a' });
       // @ts-expect-error a name is a string
       await createNode(client, { parentId, name: 7 });
       // @ts-expect-error a node has a parent
       await createNode(client, { parentId: null, name: 'a' });
       // @ts-expect-error there may be no node at a path
       export const path: string = (await nodeByPath(client, { mountKey: 'media', path: 'a' })).path;
       // @ts-expect-error there may be no such node
       export const location: string = await nodeLocation(client, { nodeId: 1 });
       // @ts-expect-error a string runs no statement
       await foldRollups('postgres://localhost');`,
    );
    expect(errors).toBe('');
  });

  test('has JSON arguments that take what a service passes on', async () => {
    const errors = await service().compile(
      `import type { NodeInsert } from '@apphub/filestore/rows';
       import { createNode, mergeMetadata } from '@apphub/filestore/sql';
       import pg from 'pg';
       const client = new pg.Client();
       const passed: Record<string, unknown> = JSON.parse('{}');
       await createNode(client, { parentId: 1, name: 'a', metadata: passed });
       await mergeMetadata(client, { nodeId: 1, setValues: { passed, list: [passed] } });
       export const insert: NodeInsert = { backend_mount_id: 1, parent_id: 2, name: 'a', kind: 'file', metadata: passed };
       // @ts-expect-error a map is not JSON
       await createNode(client, { parentId: 1, name: 'a', metadata: new Map() });`,
    );
    expect(errors).toBe('');
  });

  test('has commands with results of their type', async () => {
    const errors = await service().compile(
      `import { runCommand } from '@apphub/filestore';
       const passed: Record<string, unknown> = JSON.parse('{}');
       const outcome = await runCommand({ command: 'a', parameters: passed }, async () => ({ result: { id: '1' } }));
       // @ts-expect-error only a command that is done has a result
       outcome.result;
       export const id: string = outcome.state === 'done' ? outcome.result.id : outcome.entry.id;
       export const why: string | undefined = outcome.state === 'failed' ? outcome.error.code : undefined;
       // @ts-expect-error a Date would come back as a string
       await runCommand({ command: 'a' }, async () => ({ result: new Date() }));`,
    );
    expect(errors).toBe('');
  });

  test('has the typed calls that docs/functions.md shows, which run unchanged', async () => {
    const text = readFileSync(join(PACKAGE_ROOT, 'docs', 'functions.md'), 'utf8');
    const [example = ''] = [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code);
    const env = { FILESTORE_DATABASE_URL: database().url };
    await service().run("import { runMigrations } from '@apphub/filestore'; await runMigrations();", env);
    await database().query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('media', 'local', '/srv/media')",
    );
    const end = "import { closePool } from '@apphub/filestore'; await closePool();";
    expect(await service().compile(`${example}${end}`)).toBe('');
    expect(await service().runCompiled(env)).toBe('page 1.png 2048');
  });

  test('has everything that the TypeScript of docs/service.md uses, which runs unchanged', async () => {
    const text = readFileSync(join(PACKAGE_ROOT, 'docs', 'service.md'), 'utf8');
    const [upload = '', search = '', reconciler = '', identity = '', prune = '', beside = '', statuses = ''] =
      [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code);
    const { url } = database();
    await service().run("import { runMigrations } from '@apphub/filestore'; await runMigrations();", {
      FILESTORE_DATABASE_URL: url,
    });
    await database().query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('media', 'local', '/srv/media')",
    );
    expect(
      await service().compile(`${reconciler}
        import { closePool } from '@apphub/filestore';
        const { state, created } = await reconcile('media', async function* () { yield [{ path: 'a/b.jpg', size_bytes: 1 }]; });
        console.log(state, created);
        await closePool();`),
    ).toBe('');
    expect(await service().runCompiled({ FILESTORE_DATABASE_URL: url })).toBe('finished 2');
    expect(
      await service().compile(`${upload}
        import { closePool } from '@apphub/filestore';
        let writes = 0;
        const write = async () => { writes += 1; };
        const request = { path: 'a/c.jpg', size: 2, checksum: 'n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=' };
        for (const key of ['1', '1', '2']) {
          const { status } = await upload('ada', key, request, write).catch(({ constraint }) => ({ status: constraint }));
          console.log(status, writes);
        }
        await closePool();`),
    ).toBe('');
    expect(await service().runCompiled({ FILESTORE_DATABASE_URL: url })).toBe('201 1\n201 1\nnodes_stale 2');
    expect(
      await service().compile(`${search}
        import { closePool } from '@apphub/filestore';
        const { nodes, cursor } = await search('media', 'C.J', null);
        console.log(nodes.map(({ path, size_bytes }) => [path, size_bytes].join()), cursor, isTooBroad(new Error()));
        await closePool();`),
    ).toBe('');
    expect(await service().runCompiled({ FILESTORE_DATABASE_URL: url })).toBe("[ 'a/c.jpg,2' ] null false");
    expect(await service().compile(identity)).toBe('');
    expect(await service().compile(beside)).toBe('');
    expect(await service().compile(prune)).toBe('');
    expect(await service().runCompiled({ OPERATOR_DATABASE_URL: url })).toBe('');

    // The rows of the table, without those that describe a case in words.
    const rows = [...text.matchAll(/^\| (`\w+`[^|]*) \| (\d{3}) \|$/gm)];
    const expected = rows.flatMap(([, names = '', status]) =>
      [...names.matchAll(/`(\w+)`/g)].map(([, name = '']) => [name, Number(status)] as const),
    );
    expect(expected.length).toBeGreaterThan(15);
    const samples = JSON.stringify(expected.map(([name]) => name));
    expect(
      await service().compile(`${statuses}
        const errorOf = (name: string) => name === 'RangeError' ? new RangeError() : /^[a-z].*_/.test(name)
          ? Object.assign(new Error(), { code: 'FS409', schema: 'filestore', constraint: name })
          : Object.assign(new Error(), { code: name.padEnd(5, '0'), schema: 'filestore', constraint: 'nodes_name_check' });
        console.log(JSON.stringify((${samples} as string[]).map((name) => [name, statusOf(errorOf(name))])));`),
    ).toBe('');
    expect(JSON.parse(await service().runCompiled({}))).toEqual(expected);
  });
});

describe('a service in CommonJS', () => {
  let old: string;
  beforeAll(async () => {
    old = await service().installLibrary('typescript', '5.9.3');
  });

  // TypeScript 7 has no node10.
  test.each<[string, '5.9' | '7', string]>([
    ['node10', '5.9', '--module commonjs --moduleResolution node10'],
    ['node16', '7', '--module node16 --moduleResolution node16'],
    ['nodenext', '7', '--module nodenext --moduleResolution nodenext'],
    ['bundler', '7', '--module commonjs --moduleResolution bundler'],
  ])('gets the types of each entry point by %s of TypeScript %s', async (_, version, flags) => {
    const errors = await service().compileCommonJs(
      `import { FilestoreError, getPool, runCommand, type CommandOutcome } from '@apphub/filestore';
       import type { NodeRow } from '@apphub/filestore/rows';
       import { createNode, isRefusal, type SqlClient } from '@apphub/filestore/sql';
       import type { TestDatabase } from '@apphub/filestore/testing';
       export const createInTest = (db: TestDatabase): Promise<NodeRow> => create(db.pool);
       export const create = (client: SqlClient): Promise<NodeRow> => createNode(client, { parentId: 1, name: 'a' });
       export const run = (): Promise<CommandOutcome<string>> => runCommand({ command: 'a' }, async (client) =>
         ({ result: (await create(client)).id }));
       console.log(typeof getPool, typeof isRefusal, new FilestoreError('NOT_MIGRATED', 'a').code);
       // @ts-expect-error a name is a string
       export const wrong = () => createNode(getPool(), { parentId: 1, name: 7 });`,
      flags,
      version === '7' ? undefined : old,
    );
    expect(errors).toBe('');
    const { stdout } = await service().runNode([join('commonjs', 'service.js')], {});
    expect(stdout).toBe('function function NOT_MIGRATED\n');
  });

  test('can require each entry point that has code', async () => {
    const { exports } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
    const entries = Object.keys(exports).filter((entry) => exports[entry].default !== undefined);
    expect(entries).toEqual(expect.arrayContaining(['.', './sql', './testing']));
    const code = `for (const entry of ${JSON.stringify(entries)})
      console.log(entry, Object.keys(require('@apphub/filestore' + entry.slice(1))).length > 1);`;
    const { stdout } = await service().runNode(['--input-type=commonjs', '-e', code], {});
    expect(stdout.trim().split('\n')).toEqual(entries.map((entry) => `${entry} true`));
  });
});
