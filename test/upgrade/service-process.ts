/** A service on an installed package, with 16 connections. It runs all flows of docs/service.md until it gets the message to stop. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import type * as Package from '../../src/index.ts';
import type * as Calls from '../../src/sql/index.ts';
import { FileWriter } from '../support/rows/file-writer.ts';
import { documentedFlows } from './documented-flows.ts';
import type { ServedMount, ServiceCommand, ServiceMessage } from './service-messages.ts';
import { type Session, sessionOfPackage, sessionOfPool } from './service-sessions.ts';
import { CLASSES } from './statement-classes.ts';
import { StatementRecord } from './statement-record.ts';
import { serveByTypedCalls } from './typed-flows.ts';

/** One connection each. */
const WORKERS = {
  packagePool: ['typed', 'typed', 'typed', 'plain', 'plain', 'named', 'named', 'named'],
  otherPool: ['typedElsewhere', 'plainElsewhere', 'plainElsewhere', 'namedElsewhere', 'namedElsewhere'],
  writers: 2,
  operators: 1,
} as const;
const PROGRESS_MS = 100;
const UPKEEP_PAUSE_MS = 100;
/** More than a worker has turns. */
const TURNS = 1_000_000;

type Worker = (turn: number) => Promise<void>;
type Start = Extract<ServiceCommand, { readonly type: 'start' }>;

const stop = new AbortController();

process.on('message', (command: ServiceCommand) => {
  if (command.type === 'stop') stop.abort();
  else void serve(command);
});
// The parent ends this process: after a Ctrl-C on the terminal, too.
process.on('SIGINT', () => undefined);
process.on('disconnect', () => process.exit(1));

async function serve(command: Start): Promise<void> {
  const { folder, serviceUrl } = command;
  process.env.FILESTORE_DATABASE_URL = serviceUrl;
  process.env.FILESTORE_PGPOOL_MAX = String(WORKERS.packagePool.length);
  const load = (file: string) => import(pathToFileURL(join(folder, 'dist', file)).href);
  const filestore: typeof Package = await load('index.js');
  const calls: typeof Calls = await load(join('sql', 'index.js'));
  await filestore.assertMigrated();

  const record = new StatementRecord();
  const served: ServedMount[] = [];
  const pool = new pg.Pool({ connectionString: serviceUrl, max: WORKERS.otherPool.length });
  const clients: pg.Client[] = [];
  const connect = async (url: string) => {
    const client = new pg.Client(url);
    await client.connect();
    clients.push(client);
    return client;
  };

  const flowsOf = flowWorkers(command, calls, served);
  const workers: Worker[] = [
    ...WORKERS.packagePool.map((kind) => flowsOf(kind, sessionOfPackage(filestore, record, CLASSES[kind]))),
    ...WORKERS.otherPool.map((kind) => flowsOf(kind, sessionOfPool(pool, record, CLASSES[kind]))),
  ];
  const writers = command.mount.directoryIds
    .slice(0, WORKERS.writers)
    .map((id, index) => new FileWriter(calls, command.mount, id, command.number * WORKERS.writers + index));
  for (const writer of writers) {
    const client = record.of(await connect(serviceUrl), CLASSES.writers);
    workers.push(() => writeOnce(writer, client));
  }
  const operator = record.of(await connect(command.operatorUrl), CLASSES.upkeep);
  const { prune } = documentedFlows({ folder, named: false });
  workers.push(async () => {
    await prune(operator);
    await delay(UPKEEP_PAUSE_MS);
  });

  await runWorkers(workers, record);
  // An old service starts on a newer database too.
  await filestore.assertMigrated().catch((error: unknown) => record.fault(`assertMigrated: ${error}`));
  await filestore.closePool();
  await pool.end();
  await Promise.all(clients.map((client) => client.end()));
  const { classes, faults } = record;
  const acknowledged = writers.map((writer) => writer.acknowledged());
  tell({ type: 'end', report: { classes, faults, served, writers: acknowledged } });
}

function flowWorkers({ folder, number }: Start, calls: typeof Calls, served: ServedMount[]) {
  const text = readFileSync(join(folder, 'docs', 'service.md'));
  const document = `document-${createHash('sha1').update(text).digest('hex').slice(0, 8)}`;
  let workers = 0;
  return (kind: (typeof WORKERS)['packagePool' | 'otherPool'][number], session: Session): Worker => {
    workers += 1;
    const first = (number * 100 + workers) * TURNS;
    if (kind === 'typed' || kind === 'typedElsewhere') {
      return async (turn) => {
        const key = `typed-${first + turn}`;
        await serveByTypedCalls(calls, session, key);
        served.push({ group: 'typed', key });
      };
    }
    const flows = documentedFlows({ folder, named: kind === 'named' || kind === 'namedElsewhere' });
    return async (turn) => {
      const key = `mount-${first + turn}`;
      await flows.serve(session, key);
      served.push({ group: document, key });
    };
  };
}

/** One operation on a file. */
async function writeOnce(writer: FileWriter, client: pg.Client): Promise<void> {
  const operation = writer.choose();
  try {
    await operation(client);
  } catch (error) {
    await client.query('rollback');
    throw error;
  }
}

async function runWorkers(workers: readonly Worker[], record: StatementRecord): Promise<void> {
  const turns = workers.map(() => 0);
  const progress = setInterval(
    () => tell({ type: 'progress', turns, faults: record.faults.length }),
    PROGRESS_MS,
  );
  await Promise.all(
    workers.map(async (work, index) => {
      for (let turn = 0; !stop.signal.aborted; turn += 1) {
        try {
          await work(turn);
          turns[index] = (turns[index] ?? 0) + 1;
        } catch (error) {
          record.fault(error instanceof Error ? error.message : String(error));
          // A server that is down would otherwise be asked without a pause.
          await delay(PROGRESS_MS);
        }
      }
    }),
  );
  clearInterval(progress);
}

function tell(message: ServiceMessage): void {
  process.send?.(message);
}
