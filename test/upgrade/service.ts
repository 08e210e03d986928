import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { packageFolder, startOf } from '../../harness/compiled.ts';
import { until } from '../support/until.ts';
import type { ServiceCommand, ServiceMessage, ServiceReport } from './service-messages.ts';

export interface Service {
  /** Waits until each worker has ended its flows so many times more, or one of them saw a fault. */
  untilServed(turns: number, signal: AbortSignal): Promise<void>;
  /** Lets all workers end their flows. */
  stop(): Promise<ServiceReport>;
  /** Ends the process if it still runs. */
  kill(): Promise<void>;
}

/** Starts a service in a separate process. */
export function startService(start: Omit<Extract<ServiceCommand, { type: 'start' }>, 'type'>): Service {
  const [module = '', ...options] = [
    ...startOf(packageFolder(), 'test', 'upgrade', 'service-process'),
  ].reverse();
  const child = fork(module, {
    execArgv: options.reverse(),
    env: { PATH: process.env.PATH, HOME: process.env.HOME },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const state: { turns: readonly number[]; faults: number; report?: ServiceReport } = {
    turns: [],
    faults: 0,
  };
  child.on('message', (message: ServiceMessage) => {
    if (message.type === 'end') state.report = message.report;
    else Object.assign(state, message);
  });
  tell(child, { type: 'start', ...start });
  const refuseEnded = () => {
    if (state.report === undefined && hasEnded(child)) {
      throw new Error(`The service ended with exit code ${child.exitCode}, signal ${child.signalCode}.`);
    }
  };
  return {
    async untilServed(turns, signal) {
      const from = await until(() => {
        signal.throwIfAborted();
        refuseEnded();
        return state.turns.length > 0 && state.turns;
      });
      await until(() => {
        signal.throwIfAborted();
        refuseEnded();
        return state.faults > 0 || state.turns.every((done, index) => done >= (from[index] ?? 0) + turns);
      });
    },
    async stop() {
      tell(child, { type: 'stop' });
      const report = await until(() => {
        refuseEnded();
        return state.report;
      });
      child.disconnect();
      return report;
    },
    async kill() {
      if (hasEnded(child)) return;
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

function tell(child: ChildProcess, command: ServiceCommand): void {
  child.send(command);
}
