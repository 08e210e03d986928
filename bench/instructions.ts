import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import pg, { type Client } from 'pg';
import { connectionTo } from '../harness/connection.ts';
import { runMigrations } from '../src/index.ts';
import { makeServerOwned } from '../src/testing/embedded/account.ts';
import { serverUrl, startServer } from '../src/testing/embedded/server.ts';
import { makeServerFolder, type ServerFolder } from '../src/testing/embedded/server-folder.ts';
import { findBinaries } from './bench-server.ts';
import type { Comparison } from './context.ts';
import { createFilledTree, type Tree } from './generated-tree.ts';
import { type Insert, type Part, readInserts, readParts } from './insert-parts.ts';
import { compare } from './measure.ts';
import { countInstructions, hasValgrind, type Session, type StoppedServer } from './single-user.ts';
import { createTwin } from './twin.ts';

const DATABASE = 'postgres';
/** Enough rows for the plans of a large tree: in a small one, the planner scans tables. */
const DIRECTORIES = 200;
const FILES = 10_000;

const MOVE_GUARDS = ['backend_mounts', 'nodes', 'journal_entries', 'node_sightings'];
/** What filestore.prepare_moves does to a statement. The procedure itself does not run in single-user mode. */
const GUARDED = MOVE_GUARDS.map(
  (table) => `alter table filestore.${table} enable trigger ${table}_guard_move`,
);
const UNGUARDED = MOVE_GUARDS.map((table) => `drop trigger ${table}_guard_move on filestore.${table}`);

/** A session, and one that does the same to the twin. */
interface Compared extends Session {
  readonly twin?: Session;
}

interface Prepared {
  readonly statements: Readonly<Record<string, Compared>>;
  readonly inserts: Insert;
  readonly parts: readonly Part[];
}

interface Counting {
  readonly folder: ServerFolder;
  readonly report: Parameters<Comparison>[0]['report'];
}

/** Counts the instructions of one statement in a warm session, and how many each part of an insert takes. */
export const instructions: Comparison = async ({ report }) => {
  if (!hasValgrind()) {
    process.stderr.write('left out: instructions, because valgrind is not installed\n');
    return;
  }
  const folder = makeServerFolder('fs-bench-');
  try {
    await countAll({ folder, report });
  } finally {
    await folder.remove();
  }
};

async function countAll({ folder, report }: Counting): Promise<void> {
  const work = join(folder.path, 'work');
  makeServerOwned(work);
  const binaries = await findBinaries(folder.path, process.env);
  const version = spawnSync(join(binaries, 'postgres'), ['--version'], { encoding: 'utf8' }).stdout.trim();
  process.stderr.write(`counting instructions of ${version}\n`);
  const server: StoppedServer = {
    binaries,
    folder: work,
    data: join(folder.path, 'server', 'data'),
    database: DATABASE,
  };
  const { statements, inserts, parts } = await prepareData(server, folder);

  const insertOfTwin = await countInstructions(server, insertSession(inserts.twin, 'twin.nodes'));
  const count = async (what: string, session: Compared) => {
    const counted = await countInstructions(server, session);
    const twin = session.twin === undefined ? insertOfTwin : await countInstructions(server, session.twin);
    report(compare(what, 'instructions', [counted], [twin]));
    return counted;
  };
  const whole = await count('insert a file', insertSession(inserts.nothing));
  const counts = new Map<string, number>();
  for (const [what, session] of Object.entries(statements)) counts.set(what, await count(what, session));

  const preparedFor = async (what: string, session: Session, usual: number) => {
    const counted = await countInstructions(server, { ...session, setup: [...GUARDED, ...session.setup] });
    report(compare(`${what}, prepared for moves`, 'instructions', [counted], [usual]));
  };
  await preparedFor('insert a file', insertSession(inserts.nothing), whole);
  for (const [what, session] of Object.entries(statements)) {
    const usual = counts.get(what);
    if (usual !== undefined) await preparedFor(what, session, usual);
  }

  const without = async (name: string, removal: readonly string[], gives: Part['gives']) => {
    const session = insertSession(inserts[gives]);
    const counted = await countInstructions(server, { ...session, setup: [...removal, ...session.setup] });
    report(compare(`insert a file, of it: ${name}`, 'instructions', [whole - counted], [whole]));
  };
  await without('the disabled triggers of moves', UNGUARDED, 'nothing');
  for (const { name, removal, gives } of parts) {
    await without(name, removal, gives).catch((error: Error) => {
      process.stderr.write(`left out: an insert without ${name}: ${error.message}\n`);
    });
  }
}

function insertSession(text: string, table = 'filestore.nodes'): Session {
  return {
    setup: [`prepare work (bigint) as ${text}`],
    call: (n) => [`execute work (${n})`],
    worked: (calls) => `(select count(*) from ${table} where name like 'measured-%') = ${calls}`,
  };
}

/** Creates a data directory with the schema, a tree, its twin, and one sighting of each file. */
async function prepareData({ binaries }: StoppedServer, folder: ServerFolder): Promise<Prepared> {
  const server = await startServer({
    binaries,
    folder: folder.path,
    listen: folder.listen,
    temporary: true,
    settings: ['fsync=off'],
  });
  try {
    const url = serverUrl(server.listen, server.password, DATABASE);
    await runMigrations({ connection: connectionTo(url) });
    const client = new pg.Client(url);
    await client.connect();
    try {
      const tree = await createFilledTree(client, DIRECTORIES, FILES);
      await createTwin(client);
      return {
        inserts: await readInserts(client, tree),
        parts: await readParts(client),
        statements: await prepareStatements(client, tree),
      };
    } finally {
      await client.end();
    }
  } finally {
    await server.stop();
  }
}

async function prepareStatements(client: Client, tree: Tree): Promise<Readonly<Record<string, Compared>>> {
  const { rows } = await client.query<{ readonly id: string }>(
    "select id from filestore.nodes where kind = 'file' order by id",
  );
  const ids = rows.map(({ id }) => id);
  await client.query('select filestore.record_sightings($1::bigint[])', [ids]);
  await client.query('vacuum analyze');

  const nodes = (condition: string) => (calls: number) =>
    `(select count(*) from filestore.nodes where ${condition}) = ${calls}`;
  /** A statement on one of the files, each file once. */
  const ofFile = (text: string, worked?: Session['worked']): Session => ({
    setup: [`prepare work (bigint) as ${text}`],
    call: (n) => [`execute work (${ids[n]})`],
    ...(worked && { worked }),
  });
  const ofTwin = (changes: string, worked: string) => ({
    twin: ofFile(
      `update twin.nodes set ${changes}, version = version + 1, updated_at = statement_timestamp() where id = $1`,
      (calls) => `(select count(*) from twin.nodes where ${worked}) = ${calls}`,
    ),
  });
  const content = "size_bytes = $1, checksum = 'md5:' || md5($1::text)";
  return {
    'create_node()': {
      setup: [
        `prepare work (bigint) as
         select from filestore.create_node(${tree.beforeFirst + 1}, 'measured-' || $1, size_bytes => $1,
           checksum => 'sha256:' || md5($1::text) || md5($1::text), last_modified_at => now())`,
      ],
      call: (n) => [`execute work (${n})`],
      worked: nodes("name like 'measured-%'"),
    },
    'update the content of a file': {
      ...ofFile(`update filestore.nodes set ${content} where id = $1`, nodes("checksum like 'md5:%'")),
      ...ofTwin(content, "checksum like 'md5:%'"),
    },
    'update a file without a change': ofFile(
      'update filestore.nodes set size_bytes = size_bytes, checksum = checksum where id = $1',
    ),
    'rename a file': ofFile(
      "update filestore.nodes set name = name || '-renamed' where id = $1",
      nodes("name like '%-renamed'"),
    ),
    'delete_node() of a file': {
      ...ofFile('select from filestore.delete_node($1)', nodes('not live')),
      ...ofTwin(
        "state = 'deleted', live = false, parent_live = null, deleted_at = statement_timestamp()",
        'not live',
      ),
    },
    'begin_command() and finish_command()': {
      setup: [
        "prepare start as select from filestore.begin_command('measured')",
        // lastval() is the id of the entry that the statement before inserted.
        "prepare finish as select from filestore.finish_command(lastval(), 'succeeded')",
      ],
      call: () => ['execute start', 'execute finish'],
      worked: (calls) =>
        `(select count(*) from filestore.journal_entries where status = 'succeeded') = ${calls}`,
    },
    'a later heartbeat of a file': ofFile(
      'select filestore.record_sightings(array[$1])',
      (calls) =>
        `(select count(*) from filestore.view_filestore_active_nodes
          where last_seen_at >= pg_postmaster_start_time()) = ${calls}`,
    ),
  };
}
