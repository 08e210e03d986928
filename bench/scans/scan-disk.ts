import type { Client } from 'pg';
import { secondsOf } from '../measure.ts';
import type { Entry } from './generated-disk.ts';
import { observed, type Usage } from './usage.ts';

const PHASES = ['record', 'plan', 'apply', 'sightings'] as const;

/** What a whole scan took. */
export interface ScanFigures extends Usage {
  readonly entries: number;
  /** Seconds of each phase: recording the entries, comparing them, changing nodes, and recording sightings until the end. */
  readonly phases: Readonly<Record<(typeof PHASES)[number], number>>;
  /** Nodes that it changed in any way. */
  readonly changes: number;
}

/** Scans a mount: records from all connections at the same time, and applies with the first one. */
export async function scanDisk(
  clients: readonly Client[],
  mountKey: string,
  batches: Iterator<readonly Entry[]>,
): Promise<ScanFigures> {
  const [client] = clients as readonly [Client, ...Client[]];
  const { rows: begun } = await client.query('select id from filestore.begin_scan($1)', [mountKey]);
  const scanId: string = begun[0].id;
  const apply = async () => {
    const { rows } = await client.query('select * from filestore.apply_scan($1)', [scanId]);
    return rows[0];
  };
  const phases = { record: 0, plan: 0, apply: 0, sightings: 0 };
  let scan = { state: 'recording', settled: null } as Awaited<ReturnType<typeof apply>>;
  const usage = await observe(clients, async () => {
    phases.record = await secondsOf(() =>
      sendBatches(clients, batches, (sender, entries) =>
        sender.query({
          name: 'record',
          text: 'select filestore.record_entries($1, $2)',
          values: [scanId, entries],
        }),
      ),
    );
    while (scan.state !== 'finished') {
      const time = await secondsOf(async () => {
        scan = await apply();
      });
      const phase = phases.plan === 0 ? 'plan' : scan.settled === null ? 'apply' : 'sightings';
      phases[phase] += time;
    }
  });
  const { created, moved, changed, found, missing, deleted } = scan;
  return {
    ...usage,
    phases,
    entries: Number(scan.entries),
    changes: [created, moved, changed, found, missing, deleted].reduce(
      (sum, count) => sum + Number(count),
      0,
    ),
  };
}

/** Does work, and observes the backends of these connections. */
export async function observe(clients: readonly Client[], work: () => Promise<unknown>): Promise<Usage> {
  const backends = await Promise.all(
    clients.map(async (client) => {
      const { rows } = await client.query('select pg_backend_pid() as pid');
      return rows[0].pid;
    }),
  );
  return observed(backends, work);
}

/** Sends all batches as JSON, each connection the next one as soon as it is free. */
export async function sendBatches(
  clients: readonly Client[],
  batches: Iterator<readonly Entry[]>,
  send: (client: Client, entries: string) => Promise<unknown>,
): Promise<void> {
  await Promise.all(
    clients.map(async (client) => {
      for (let next = batches.next(); !next.done; next = batches.next()) {
        await send(client, JSON.stringify(next.value));
      }
    }),
  );
}
