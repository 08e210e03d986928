import type {
  DatabaseKind,
  ThreadCommand,
  ThreadEvent,
  ThreadOutcome,
  ThreadTarget,
} from '../../src/graphile/protocol.ts';
import { type GraphileThread, startThread } from '../../src/graphile/thread.ts';
import { CONFIG_FILE } from '../../src/package-root.ts';
import { withSession } from '../../src/session/session.ts';
import { clientConfig, databaseOf } from '../../src/settings/database.ts';
import { RUN_SETTINGS } from '../../src/settings/server-settings.ts';
import { ownerOf, type WorkflowDatabases } from './databases.ts';

/** graphile-migrate in a thread, ready for one command after the other. */
export interface Graphile {
  /** Returns failures of the thread and never throws them. */
  run(command: ThreadCommand, onRunning: (target: ThreadTarget) => void): Promise<ThreadOutcome>;
  /** Cancels its statements on the server, so the current command fails. */
  cancel(): Promise<void>;
  /** Ends the thread at once. */
  end(): Promise<void>;
}

const SERVER_SETTINGS = {
  ...RUN_SETTINGS,
  // Otherwise a forgotten transaction in another terminal would block a save silently.
  lock_timeout: '10000',
};

type Connected = Extract<ThreadEvent, { readonly type: 'connected' }>;

/** Starts the thread. A thread that ended is started again on demand. */
export function startGraphile(databases: WorkflowDatabases): Graphile {
  let thread = startDevelopmentThread(databases);
  /** Sessions on the server, by database and process id. */
  const sessions = new Map<string, Connected>();
  return {
    run(command, onRunning) {
      if (thread.hasEnded()) {
        thread = startDevelopmentThread(databases);
        sessions.clear();
      }
      return thread.run(command, (event) => {
        if (event.type === 'connected') sessions.set(`${event.database} ${event.pid}`, event);
        else if (event.type === 'disconnected') sessions.delete(`${event.database} ${event.pid}`);
        else if (event.type === 'start') onRunning(event.target);
      });
    },
    async cancel() {
      const cancelled = [...sessions.values()].map(({ database, pid }) =>
        cancelSession(databases, database, pid),
      );
      await Promise.allSettled(cancelled);
    },
    end: () => thread.end(),
  };
}

function startDevelopmentThread(databases: WorkflowDatabases): GraphileThread {
  return startThread({
    connections: {
      main: clientConfig(databases.main),
      shadow: clientConfig(databases.shadow),
      root: clientConfig(databases.root),
    },
    owner: ownerOf(databases.main),
    configFile: CONFIG_FILE,
    serverSettings: SERVER_SETTINGS,
    clearSession: false,
    preload: ['watch', 'commit', 'reset'],
    single: false,
  });
}

async function cancelSession(databases: WorkflowDatabases, kind: DatabaseKind, pid: number): Promise<void> {
  await withSession(databaseOf(databases[kind]), (session) =>
    session.query(`select pg_catalog.pg_cancel_backend(${pid})`),
  );
}
