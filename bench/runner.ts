import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectionTo } from '../harness/connection.ts';
import { startProxy } from '../harness/proxy.ts';
import { readCommittedMigrations } from '../src/graphile/committed-migrations.ts';
import { runMigrations } from '../src/index.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { withDatabase, withEmptyDatabase } from './bench-server.ts';
import type { Comparison, Context } from './context.ts';
import { atMost, compare, inTurns, single } from './measure.ts';
import { buildPackage, LIBRARY_SCRIPT, type Program, processTime } from './processes.ts';

/** More pairs than rounds: a process takes a fraction of a second, and varies more than a load of ten seconds. */
const LEAST_PAIRS = 15;
const FLEET_SIZE = 20;

const node = (...args: readonly string[]): Program => ({ command: process.execPath, args });
const npmRun = (script: string): Program => ({ command: 'npm', args: ['run', script] });

const MIGRATE = node(join('dist', 'cli.js'), 'migrate');
const LIBRARY: Program = { command: join('node_modules', '.bin', 'graphile-migrate'), args: ['migrate'] };
const LIBRARY_IS_DONE = 'Already up to date';

/** A process, one to compare it with, and the largest allowed ratio. */
const WITH_NOTHING_PENDING = [
  { name: 'pg and one query', here: MIGRATE, other: node(join('bench', 'one-query.mjs')), most: 1.5 },
  { name: 'graphile-migrate', here: MIGRATE, other: { ...LIBRARY, says: LIBRARY_IS_DONE }, most: 0.5 },
  {
    name: 'the same by npm run',
    here: npmRun('db:migrate:filestore'),
    other: { ...npmRun(LIBRARY_SCRIPT), says: LIBRARY_IS_DONE },
    most: 1,
  },
] satisfies readonly { name: string; here: Program; other: Program; most: number }[];

/** The cost of a deploy: whole processes, from start to end. */
export const runner: Comparison = async (context) => {
  const folder = buildPackage();
  await nothingPending(context, folder);
  await fleetWithNothingPending(context, folder);
  await everythingPending(context, folder);
};

/** A run with nothing pending, as most are. */
async function nothingPending(context: Context, folder: string): Promise<void> {
  await withDatabase(context.server, async ({ url }) => {
    for (const { name, here, other, most } of WITH_NOTHING_PENDING) {
      const samples = await inPairs(context, {
        here: () => processTime({ ...here, says: 'Up to date: ' }, folder, url),
        other: () => processTime(other, folder, url),
      });
      context.report(
        compare(`nothing pending, against ${name}`, 'ms', samples.here, samples.other, atMost(most)),
      );
    }
    await countMessages(context, url);
  });
}

/** One process for many databases against one for a single database. */
async function fleetWithNothingPending(context: Context, folder: string): Promise<void> {
  const list = 'fleet.txt';
  await withFleet(context, [], async (urls) => {
    writeFileSync(join(folder, list), urls.map((url, index) => `name-${index} ${url}\n`).join(''));
    const [url = ''] = urls;
    const fleet = node(...MIGRATE.args, '--databases', list);
    const samples = await inPairs(context, {
      here: () =>
        processTime({ ...fleet, says: `${FLEET_SIZE} databases: ${FLEET_SIZE} current` }, folder, url),
      other: () => processTime({ ...MIGRATE, says: 'Up to date: ' }, folder, url),
    });
    const what = `fleet of ${FLEET_SIZE}, nothing pending, against one database`;
    context.report(compare(what, 'ms', samples.here, samples.other, atMost(2.5)));
  });
}

/** Gives the work the URLs of as many databases as a fleet has, each with the whole schema. */
function withFleet(
  context: Context,
  urls: readonly string[],
  work: (urls: readonly string[]) => Promise<void>,
): Promise<void> {
  if (urls.length === FLEET_SIZE) return work(urls);
  return withDatabase(context.server, ({ url }) => withFleet(context, [...urls, url], work));
}

/** The cost of the function for a running service, counted in connections and round trips. */
async function countMessages({ report }: Context, url: string): Promise<void> {
  const proxy = await startProxy(url);
  try {
    await runMigrations({ connection: connectionTo(proxy.url) });
    const { conversations } = proxy;
    // The last message ends the connection, and has no answer.
    const roundTrips = conversations.flat().filter((type) => type !== 'X').length;
    const one = { bound: 'at most', value: 1, of: 'here' } as const;
    report(
      single('nothing pending, as a function: connections', 'count', [conversations.length], one),
      single('nothing pending, as a function: round trips', 'count', [roundTrips], one),
    );
  } finally {
    await proxy.stop();
  }
}

/** The first deploy, against the smallest program that does the same. */
async function everythingPending(context: Context, folder: string): Promise<void> {
  if (spawnSync('psql', ['--version']).status !== 0) {
    process.stderr.write('left out: applying everything is compared with psql, which is not installed\n');
    return;
  }
  const migrations = await readCommittedMigrations(join(PACKAGE_ROOT, 'migrations'));
  const file = join(folder, 'everything.sql');
  writeFileSync(
    file,
    // Each in a transaction, as the runner applies it.
    migrations.map(({ body, transaction }) => (transaction ? `begin;\n${body}\ncommit;` : body)).join('\n'),
  );
  const onEmpty = (work: (url: string) => Promise<number>) => withEmptyDatabase(context.server, work);
  const { here, other } = await inPairs(context, {
    here: () => onEmpty((url) => processTime({ ...MIGRATE, says: 'Done: ' }, folder, url)),
    other: () =>
      onEmpty(async (url) => {
        const args = ['-Xqf', file, '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', url];
        const applied = await processTime({ command: 'psql', args }, folder, url);
        return applied + (await processTime(node(join('bench', 'load-libraries.cjs')), folder, url));
      }),
  });
  const what = 'everything pending, against psql and loading the libraries';
  context.report(compare(what, 'ms', here, other, atMost(1.2)));
}

async function inPairs(
  { rounds }: Context,
  variants: Readonly<Record<'here' | 'other', () => Promise<number>>>,
): Promise<Readonly<Record<'here' | 'other', readonly number[]>>> {
  // A first run is not measured: it loads files into memory, and tsx fills its cache.
  await variants.here();
  await variants.other();
  return inTurns(Math.max(rounds, LEAST_PAIRS), variants);
}
