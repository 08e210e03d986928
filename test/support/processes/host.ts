import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll } from 'vitest';
import { packageFolder, startOf } from '../../../harness/compiled.ts';
import type { MigrationEvent } from '../../../src/index.ts';
import { until } from '../until.ts';
import type { HostCommand, HostMessage, HostOutcome } from './host-messages.ts';

/** A process that calls runMigrations and must not be harmed by it. */
export interface Host {
  run(options: HostRunOptions): HostRun;
  /** Events so far that would have ended the process. */
  readonly faults: readonly string[];
}

export interface EndableHost extends Host {
  /** Kills the process, as an operating system without memory does. Resolves when it is gone. */
  kill(): Promise<void>;
  end(): Promise<void>;
}

export interface HostRunOptions {
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  readonly settings?: Extract<HostCommand, { readonly type: 'run' }>['settings'];
}

/** One call of runMigrations. */
export interface HostRun {
  readonly events: readonly MigrationEvent[];
  /** Resolves with the first event that matches. */
  untilEvent<Type extends MigrationEvent['type']>(
    type: Type,
  ): Promise<Extract<MigrationEvent, { readonly type: Type }>>;
  abort(): void;
  readonly outcome: Promise<HostOutcome>;
}

/** One process for all tests of a file. It must survive all of them, and have nothing pending at the end. */
export function hostForFile(): () => Host {
  let host: EndableHost | undefined;
  beforeAll(() => {
    host = startHost();
  });
  afterAll(() => host?.end());
  return () => {
    if (host === undefined) throw new Error('the host exists only inside a test');
    return host;
  };
}

export function startHost(): EndableHost {
  const child = spawn(
    process.execPath,
    startOf(packageFolder(), 'test', 'support', 'processes', 'host-process'),
    {
      stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
      env: { PATH: process.env.PATH, HOME: process.env.HOME },
    },
  );
  // Two listeners for each run.
  child.setMaxListeners(0);
  const faults: string[] = [];
  child.on('message', (message: HostMessage) => {
    if (message.type === 'fault') faults.push(message.description);
  });
  child.on('exit', (code, signal) => {
    if (code !== 0) faults.push(`the process ended with exit code ${code}, signal ${signal}`);
  });
  let runs = 0;
  return {
    faults,
    run(options) {
      runs += 1;
      return startRun(child, runs, options);
    },
    async kill() {
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    },
    async end() {
      tell(child, { type: 'end' });
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      if (faults.length > 0) throw new Error(faults.join('\n'));
    },
  };
}

function startRun(child: ChildProcess, run: number, options: HostRunOptions): HostRun {
  const events: MigrationEvent[] = [];
  const outcome = new Promise<HostOutcome>((resolve, reject) => {
    child.on('message', (message: HostMessage) => {
      if (message.type === 'event' && message.run === run) events.push(message.event);
      if (message.type === 'outcome' && message.run === run) resolve(message.outcome);
    });
    child.once('exit', () => reject(new Error('the host ended during the run')));
  });
  // Who waits for it hears of it.
  outcome.catch(() => undefined);
  tell(child, { type: 'run', run, settings: {}, ...options });
  return {
    events,
    untilEvent: <Type extends MigrationEvent['type']>(type: Type) =>
      until(() =>
        events.find(
          (event): event is Extract<MigrationEvent, { readonly type: Type }> => event.type === type,
        ),
      ),
    abort: () => tell(child, { type: 'abort', run }),
    outcome,
  };
}

function tell(child: ChildProcess, command: HostCommand): void {
  child.send(command);
}
