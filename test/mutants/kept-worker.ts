import { type PoolOptions, type PoolWorker, ThreadsPoolWorker, type WorkerRequest } from 'vitest/node';

type Listener = (argument: unknown) => void;

/**
 * One thread for all runs of test files. Starting one for each run, and loading its modules, takes longer than most
 * tests. A run loads the test files themselves again.
 */
export class KeptThread {
  #thread: ThreadsPoolWorker | undefined;
  #isStarted = false;

  readonly pool = { name: 'kept', createPoolWorker: (options: PoolOptions) => this.#lend(options) };

  /** Ends the thread, such as after a test that did not end. The next run starts another one. */
  async discard(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    this.#isStarted = false;
    await thread?.stop();
  }

  #lend(options: PoolOptions): PoolWorker {
    const listeners: [event: string, listener: Listener][] = [];
    const thread = () => {
      if (this.#thread === undefined) throw new Error('the thread was discarded during a run');
      return this.#thread;
    };
    /** Vitest waits for these answers. */
    const answer = (type: 'started' | 'stopped') =>
      setImmediate(() => {
        for (const [event, listener] of [...listeners])
          if (event === 'message') listener({ type, __vitest_worker_response__: true });
      });
    return {
      name: 'kept',
      start: async () => {
        if (this.#thread !== undefined) return;
        this.#thread = new ThreadsPoolWorker(options);
        await this.#thread.start();
      },
      stop: async () => {
        for (const [event, listener] of listeners.splice(0)) this.#thread?.off(event, listener);
      },
      on(event, listener) {
        listeners.push([event, listener]);
        thread().on(event, listener);
      },
      off(event, listener) {
        const at = listeners.findIndex(([name, known]) => name === event && known === listener);
        if (at >= 0) listeners.splice(at, 1);
        thread().off(event, listener);
      },
      send: (message: WorkerRequest) => {
        if (message.type === 'stop') answer('stopped');
        else if (message.type === 'start' && this.#isStarted) answer('started');
        else {
          if (message.type === 'start') this.#isStarted = true;
          thread().send(message);
        }
      },
      deserialize: (data) => data,
    };
  }
}
