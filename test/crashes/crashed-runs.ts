import type { Client } from 'pg';
import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import {
  firstLineOf,
  type Message,
  type MessageProxy,
  startMessageProxy,
} from '../../harness/message-proxy.ts';
import type { Moment } from '../../harness/proxy.ts';
import { runMigrations } from '../../src/index.ts';
import { withClient } from '../../src/testing/with-client.ts';
import {
  copyEachKind,
  differencesBetween,
  KINDS,
  readItems,
  resetItems,
} from '../support/packages/each-kind.ts';
import type { Points } from '../support/points.ts';
import { type EndableHost, startHost } from '../support/processes/host.ts';
import { readTraces } from '../support/processes/migrator-scene.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';
import { until } from '../support/until.ts';

/** What dies: the process that runs the migrations, one of its connections, the backend of it, or the server. */
const VICTIMS = ['client', 'connection', 'backend', 'server'] as const;
type Victim = (typeof VICTIMS)[number];
const MOMENTS: readonly Moment[] = ['before', 'during', 'after'];

const NAME = 'crashed';

/** Every victim before, during and after every message that a run sends, as a run that is not disturbed counts them. */
export async function openCrashedRuns(): Promise<Points> {
  const server = await startOwnServer({ listen: 'tcp' });
  const copy = copyEachKind();
  const hosts: EndableHost[] = [];
  let proxy: MessageProxy | undefined;
  const stop = async () => {
    await Promise.allSettled(hosts.map((host) => host.end()));
    await proxy?.stop();
    copy.remove();
    await server.stop();
  };
  try {
    await withClient(server.url, (client) => client.query(`create database ${NAME}`));
    const url = databaseUrl(server.url, NAME);
    await runMigrations({ connection: connectionTo(url) });
    proxy = await startMessageProxy(url);
    const scene: Scene = { server, url, proxy, folder: copy.folder, hosts, undisturbed: [] };
    await resetItems(scene.url);
    proxy.begin();
    await finish(scene, proxy.url);
    const { messages } = proxy;
    const complete = { ...scene, undisturbed: await readItems(url) };
    const all = messages.flatMap((text, at) =>
      VICTIMS.flatMap((victim) =>
        MOMENTS.map((moment) => ({
          name: `${victim} killed ${moment} message ${at + 1}, ${firstLineOf(text)}`,
          play: () => crash(complete, victim, moment, at + 1),
        })),
      ),
    );
    const summary = `${messages.length} messages of ${KINDS.length} migrations`;
    return { summary: () => summary, all, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Scene {
  readonly server: OwnServer;
  readonly url: string;
  readonly proxy: MessageProxy;
  readonly folder: string;
  /** The last one waits for work, so that no case waits for the start of a process. */
  readonly hosts: EndableHost[];
  /** The picture after a run that was not disturbed. */
  readonly undisturbed: readonly string[];
}

async function crash(
  scene: Scene,
  victim: Victim,
  moment: Moment,
  number: number,
): Promise<readonly string[]> {
  const { proxy, hosts } = scene;
  await resetItems(scene.url);
  const host = hostOf(scene);
  let struck: Promise<void> | undefined;
  const isHeldUp = ({ text }: Message) => moment === 'during' && text.includes('create index concurrently');
  const outcome = await withClient(scene.url, async (writer) => {
    proxy.begin({
      number,
      moment,
      async arrange(message) {
        if (isHeldUp(message)) await holdUpBuild(writer);
      },
      async strike(message) {
        if (isHeldUp(message)) await untilHeldUp(scene.url);
        struck = STRIKES[victim](scene, message, host);
        await struck;
        await writer.end();
      },
    });
    const running = host.run({ folder: scene.folder, env: { DATABASE_URL: proxy.url } });
    const ended = await running.outcome.catch(() => undefined);
    // A run that gives up ends before the server is back.
    await struck;
    return ended;
  });
  const isStruck = struck !== undefined;
  proxy.begin();
  const faults: string[] = [];
  // How often a run looks for sessions that block it depends on how long it takes.
  if (!isStruck && outcome?.ok !== true) faults.push(`The run ended before message ${number}`);
  if (victim === 'client' && isStruck) hosts.splice(hosts.indexOf(host), 1);
  else {
    faults.push(...host.faults);
    // A backend that someone ended on purpose ends the run.
    const isAsked = victim === 'backend' && outcome?.ok === false && outcome.error.sqlState === '57P01';
    if (victim === 'connection' && outcome?.ok && outcome.report.attempts > 2) {
      faults.push(`A lost connection cost ${outcome.report.attempts - 1} attempts`);
    }
    if (outcome?.ok === false && !isAsked)
      faults.push(`The run failed: ${outcome.error.code} ${outcome.error.message}`);
  }
  await finish(scene, scene.url).catch((error: Error) => faults.push(error.message));
  return [...faults, ...differencesBetween(scene.undisturbed, await readItems(scene.url))];
}

const STRIKES: Readonly<
  Record<Victim, (scene: Scene, message: Message, host: EndableHost) => Promise<void>>
> = {
  client: (_, __, host) => host.kill(),
  connection: async (_, message) => message.cut(),
  async backend({ url }, message) {
    await withClient(url, async (client) => {
      const text = 'select pg_terminate_backend(pid) from pg_stat_activity where client_port = $1';
      const { rowCount } = await client.query(text, [message.port]);
      // Before the server has read who it is, the connection has no session that could be ended.
      if (rowCount === 0) message.cut();
      await until(async () => (await client.query(text, [message.port])).rowCount === 0);
    });
  },
  server: ({ server }) => server.restart('kill'),
};

/** Writes the table until the connection ends, so that the build of the index waits when its invalid index is there. */
async function holdUpBuild(client: Client): Promise<void> {
  await client.query('begin; lock table app.items in row exclusive mode');
}

async function untilHeldUp(url: string): Promise<void> {
  const text = "select from pg_index where indrelid = 'app.items'::regclass and not indisvalid";
  await withClient(url, (client) => until(async () => (await client.query(text)).rowCount === 1));
}

function hostOf({ hosts }: Scene): EndableHost {
  const host = hosts.at(-1) ?? startHost();
  if (hosts.length === 0) hosts.push(host);
  return host;
}

/** A run that is not disturbed. */
async function finish(scene: Scene, url: string): Promise<void> {
  const outcome = await hostOf(scene).run({ folder: scene.folder, env: { DATABASE_URL: url } }).outcome;
  if (!outcome.ok) throw new Error(`The next run failed: ${outcome.error.code} ${outcome.error.message}`);
  await withClient(scene.url, (client) => until(async () => (await readTraces(client)).length === 0));
}
