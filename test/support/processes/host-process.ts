/**
 * A service that calls runMigrations in a separate process, so that a test can see that it survives. It counts
 * heartbeats, and reports every event that would have ended it.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import type { HostCommand, HostError, HostMessage, HostOutcome } from './host-messages.ts';

const HEARTBEAT_MS = 20;

type RunCommand = Extract<HostCommand, { readonly type: 'run' }>;

let heartbeats = 0;
const heart = setInterval(() => {
  heartbeats += 1;
}, HEARTBEAT_MS);
const controllers = new Map<number, AbortController>();

function tell(message: HostMessage): void {
  process.send?.(message);
}

for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    const stack = error instanceof Error ? error.stack : undefined;
    tell({ type: 'fault', description: `${event}: ${stack ?? String(error)}` });
  });
}
process.exit = (code) => {
  tell({ type: 'fault', description: `process.exit(${code})` });
  throw new Error('process.exit was called');
};

process.on('message', async (command: HostCommand) => {
  if (command.type === 'abort') controllers.get(command.run)?.abort();
  else if (command.type === 'run') {
    tell({ type: 'outcome', run: command.run, outcome: await runPackage(command) });
  } else {
    clearInterval(heart);
    process.disconnect();
  }
});

async function runPackage({ run, folder, env, settings }: RunCommand): Promise<HostOutcome> {
  const controller = new AbortController();
  controllers.set(run, controller);
  const path = pathToFileURL(join(folder, 'src', 'index.js')).href;
  const { FilestoreError, runMigrations }: typeof import('../../../src/index.ts') = await import(path);
  try {
    const report = await runMigrations({
      env,
      settings,
      signal: controller.signal,
      onEvent: (event) => tell({ type: 'event', run, event }),
    });
    return { ok: true, report };
  } catch (error) {
    return { ok: false, error: { ...describe(error), isFilestoreError: error instanceof FilestoreError } };
  } finally {
    const before = heartbeats;
    while (heartbeats === before) await delay(HEARTBEAT_MS);
  }
}

function describe(error: unknown): Omit<HostError, 'isFilestoreError'> {
  const { name, code, message, applied, sqlState, cause } = fieldsOf(error);
  return {
    name: String(name),
    code: typeof code === 'string' ? code : null,
    message: String(message),
    applied: Array.isArray(applied) ? applied.map(String) : null,
    sqlState: typeof sqlState === 'string' ? sqlState : null,
    cause: cause instanceof Error ? describe(cause) : null,
  };
}

/** Name and message of an error are not own properties, so they are copied one by one. */
function fieldsOf(error: unknown): Readonly<Record<string, unknown>> {
  if (!(error instanceof Error)) return { name: typeof error, message: error };
  return { ...error, name: error.name, message: error.message, cause: error.cause };
}
