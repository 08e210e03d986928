import type { ThreadCommand, ThreadOutcome, ThreadTarget } from '../../src/graphile/protocol.ts';
import { type GraphileThread, startThread } from '../../src/graphile/thread.ts';
import { CONFIG_FILE } from '../../src/package-root.ts';
import { clientConfig } from '../../src/settings/database.ts';
import { RUN_SETTINGS } from '../../src/settings/server-settings.ts';
import { ownerOf, type WorkflowDatabases } from './databases.ts';

/** graphile-migrate in a thread, ready for one command after the other. */
export interface Graphile {
  /** Returns failures of the thread and never throws them. */
  run(command: ThreadCommand, onRunning: (target: ThreadTarget) => void): Promise<ThreadOutcome>;
  /** Ends the thread at once, so the current command fails. The server then cancels its statement. */
  end(): Promise<void>;
}

const SERVER_SETTINGS = {
  ...RUN_SETTINGS,
  // Otherwise a forgotten transaction in another terminal would block a save silently.
  lock_timeout: '10000',
};

/** Starts the thread. A thread that ended is started again on demand. */
export function startGraphile(databases: WorkflowDatabases): Graphile {
  let thread = startDevelopmentThread(databases);
  return {
    run(command, onRunning) {
      if (thread.hasEnded()) thread = startDevelopmentThread(databases);
      return thread.run(command, (event) => {
        if (event.type === 'start') onRunning(event.target);
      });
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
