import { once } from 'node:events';
import pg, { type Client } from 'pg';
import { type Job, WARM_UP_SECONDS } from './load.ts';

/** Connects, sends 0, waits for the start message, warms up, and sends the number of calls per second. */
async function work(job: Job): Promise<void> {
  const clients = await Promise.all(
    job.clientIds.map(async () => {
      const client = new pg.Client(job.url);
      await client.connect();
      return client;
    }),
  );
  const go = once(process, 'message');
  process.send?.(0);
  await go;
  const startedAt = performance.now() + WARM_UP_SECONDS * 1000;
  const end = startedAt + job.seconds * 1000;
  const counts = await Promise.all(
    clients.map((client, index) => repeat(client, job.clientIds[index] ?? 0, job, startedAt, end)),
  );
  const calls = counts.reduce((sum, count) => sum + count, 0);
  process.send?.(calls / ((performance.now() - startedAt) / 1000));
  await Promise.all(clients.map((client) => client.end()));
}

/** The calls that began after a moment. */
async function repeat(
  client: Client,
  clientId: number,
  job: Job,
  countedFrom: number,
  end: number,
): Promise<number> {
  const order: string[] = [];
  const text = job.text.replaceAll(/(?<!:):([a-z_]+)/g, (_, name: string) => `$${order.push(name)}`);
  let calls = 0;
  let counted = 0;
  for (let now = performance.now(); now < end; now = performance.now()) {
    calls += 1;
    if (now >= countedFrom) counted += 1;
    const call: Record<string, number> = { client_id: clientId };
    for (const [name, variable] of Object.entries(job.variables)) {
      call[name] =
        variable.kind === 'counter'
          ? calls
          : variable.from + Math.floor(Math.random() * (variable.to - variable.from + 1));
    }
    await client.query({ name: 'load', text, values: order.map((name) => call[name]) });
  }
  return counted;
}

const [job] = (await once(process, 'message')) as [Job];
await work(job);
process.disconnect();
