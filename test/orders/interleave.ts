import { setTimeout as delay } from 'node:timers/promises';
import pg, { type Client } from 'pg';
import { reset, type World } from './world.ts';

/** What a session sends: its transactions, one after the other. */
export interface Session {
  readonly name: string;
  readonly transactions: readonly Transaction[];
  /** Where it differs from that of the others. */
  readonly isolation?: string | undefined;
}

export interface Transaction {
  /** Statements. The first one is sent with `begin`, which takes no snapshot and no lock. */
  readonly statements: readonly string[];
  readonly level: string;
  readonly end: 'commit' | 'rollback' | 'none';
}

export interface Refusal {
  readonly code: string;
  readonly reason: string;
  readonly message: string;
}

/** What a session got. It ends with the first transaction that is refused. */
export interface Answers {
  /** The number of transactions that were committed, and the rows that they returned, as text. */
  readonly committed: number;
  readonly rows: readonly string[];
  readonly refusals: readonly Refusal[];
}

export interface Run {
  /** The session of each step, in the order in which they were sent. */
  readonly choices: readonly number[];
  /** For each step, the sessions that could have sent one. */
  readonly possible: readonly (readonly number[])[];
  readonly steps: readonly string[];
  readonly sessions: readonly Answers[];
  /** No transaction began while another one was open. */
  readonly isSerial: boolean;
  readonly waits: number;
}

interface Step {
  readonly text: string;
  readonly begins: boolean;
  readonly ends: boolean;
  readonly commits: boolean;
}

interface Connection {
  readonly client: Client;
  readonly pid: number;
}

/** The longest time in which steps must end or wait for a lock. Only an endless wait takes longer. */
const ENDLESS_MS = 30_000;

export class Interleaver {
  readonly #world: World;
  readonly #connections: Connection[] = [];

  constructor(world: World) {
    this.#world = world;
  }

  /** Sends the steps of all sessions in one order: the given choices first, then always the first session that can. */
  async run(sessions: readonly Session[], isolation: string, choices: readonly number[]): Promise<Run> {
    await reset(this.#world);
    while (this.#connections.length < sessions.length) this.#connections.push(await this.#connect());
    const running = sessions.map((session, at) => {
      const connection = this.#connections[at];
      if (connection === undefined) throw new Error('no connection');
      return new RunningSession(connection, stepsOf(session, isolation, this.#world));
    });
    const made: number[] = [];
    const possible: (readonly number[])[] = [];
    const steps: string[] = [];
    let isSerial = true;
    for (;;) {
      const able = running.flatMap((session, at) => (session.isAble ? [at] : []));
      // A deadlock or a lock timeout can end another way than it did before these choices were noted.
      const noted = choices[made.length];
      const chosen = noted !== undefined && able.includes(noted) ? noted : able[0];
      const session = running[chosen ?? -1];
      if (chosen === undefined || session === undefined) break;
      isSerial &&= !running.some((other) => other !== session && other.isOpen);
      made.push(chosen);
      possible.push(running.every((each) => !each.isWaiting && each.hasOnlyEnd) ? [chosen] : able);
      const text = session.send();
      await this.#settle(running);
      steps.push(`${chosen + 1}: ${text}${session.isWaiting ? ' (waits)' : ''}`);
    }
    const waits = steps.filter((step) => step.endsWith('(waits)')).length;
    return {
      choices: made,
      possible,
      steps,
      isSerial,
      waits,
      sessions: running.map(({ committed, rows, refusals }) => ({ committed, rows, refusals })),
    };
  }

  async close(): Promise<void> {
    await Promise.all(this.#connections.map(({ client }) => client.end()));
  }

  async #connect(): Promise<Connection> {
    const client = new pg.Client(this.#world.url);
    // The query that is lost with its connection reports it.
    client.on('error', () => undefined);
    await client.connect();
    const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
    return { client, pid: rows[0]?.pid ?? 0 };
  }

  /** Waits until every step that was sent has ended, or waits for a session that is idle. */
  async #settle(running: readonly RunningSession[]): Promise<void> {
    const startedAt = performance.now();
    for (;;) {
      const waiting = running.filter((session) => session.isWaiting);
      if (waiting.length === 0) return;
      await Promise.race([delay(2), ...waiting.map((session) => session.done)]);
      const sent = running.filter((session) => session.isWaiting);
      if (sent.length === 0) return;
      const { rows } = await this.#world.watcher.query<{ pid: number; blockers: number[] }>(
        'select pid, pg_blocking_pids(pid) as blockers from unnest($1::integer[]) pid',
        [sent.map(({ pid }) => pid)],
      );
      const blockers = new Map(rows.map((row) => [row.pid, row.blockers]));
      const idle = running.filter((session) => !session.isWaiting).map(({ pid }) => pid);
      if (sent.every(({ pid, isWaiting }) => isWaiting && waitsForOne(pid, idle, blockers))) return;
      if (performance.now() - startedAt > ENDLESS_MS) {
        await Promise.all(
          sent.map(({ pid }) => this.#world.watcher.query('select pg_cancel_backend($1)', [pid])),
        );
        throw new Error(`an endless wait: ${JSON.stringify(rows)}`);
      }
    }
  }
}

/** Whether a process waits, directly or not, for one of these. A circle that does not is a deadlock, which the server ends. */
function waitsForOne(
  pid: number,
  idle: readonly number[],
  blockers: ReadonlyMap<number, readonly number[]>,
): boolean {
  const seen = new Set<number>();
  const look = [pid];
  for (let next = look.pop(); next !== undefined; next = look.pop()) {
    for (const blocker of blockers.get(next) ?? []) {
      if (idle.includes(blocker)) return true;
      if (!seen.has(blocker)) look.push(blocker);
      seen.add(blocker);
    }
  }
  return false;
}

class RunningSession {
  readonly pid: number;
  readonly rows: string[] = [];
  readonly refusals: Refusal[] = [];
  committed = 0;
  isWaiting = false;
  isOpen = false;
  done: Promise<void> = Promise.resolve();
  readonly #client: Client;
  #steps: readonly Step[];
  #uncommitted: readonly string[] = [];

  constructor({ client, pid }: Connection, steps: readonly Step[]) {
    this.pid = pid;
    this.#client = client;
    this.#steps = steps;
  }

  get isAble(): boolean {
    return !this.isWaiting && this.#steps.length > 0;
  }

  get hasOnlyEnd(): boolean {
    return this.#steps.every((step) => step.ends && !step.begins);
  }

  send(): string {
    const [step, ...others] = this.#steps;
    if (step === undefined) throw new Error('nothing is left to send');
    this.#steps = others;
    this.isWaiting = true;
    this.isOpen = true;
    this.done = this.#client
      .query(step.text)
      .then(
        (result: unknown) => this.#succeed(step, result),
        (error: unknown) => this.#fail(step, error),
      )
      .finally(() => {
        this.isWaiting = false;
      });
    return step.text.replace(/\s+/g, ' ');
  }

  #succeed(step: Step, result: unknown): void {
    const last = Array.isArray(result) ? result.at(-1) : result;
    if (!step.ends || step.begins) this.#uncommitted = [...this.#uncommitted, JSON.stringify(last.rows)];
    if (!step.ends) return;
    this.isOpen = false;
    if (step.commits) {
      this.committed += 1;
      this.rows.push(...this.#uncommitted);
    }
    this.#uncommitted = [];
  }

  /** The transaction can only be rolled back, and the caller gives up. */
  #fail(step: Step, error: unknown): void {
    if (!(error instanceof pg.DatabaseError)) throw error;
    const { code = '', constraint = '', message } = error;
    this.refusals.push({ code, reason: constraint, message });
    const isOver = step.ends;
    if (isOver) this.isOpen = false;
    this.#steps = isOver ? [] : [{ text: 'rollback', begins: false, ends: true, commits: false }];
  }
}

function stepsOf(session: Session, isolation: string, { roles, fillIn }: World): readonly Step[] {
  return session.transactions.flatMap(({ statements, level, end }): readonly Step[] => {
    if (end === 'none') {
      return statements.map((text) => ({ text: fillIn(text), begins: true, ends: true, commits: true }));
    }
    const begin = `begin isolation level ${session.isolation ?? isolation}; ${roles[level] === undefined ? '' : `set local role "${roles[level]}"; `}`;
    return [
      ...statements.map((text, at) => ({
        text: `${at === 0 ? begin : ''}${fillIn(text)}`,
        begins: at === 0,
        ends: false,
        commits: false,
      })),
      { text: end, begins: false, ends: true, commits: end === 'commit' },
    ];
  });
}

/** Every order of the steps of some sessions that a server can take, except for those that are equal to one of them. */
export async function everyOrder(
  interleaver: Interleaver,
  sessions: readonly Session[],
  isolation: string,
  visit: (run: Run) => Promise<void>,
): Promise<void> {
  const names = sessions.map(({ name }) => name);
  const open: (readonly number[])[] = [[]];
  for (let choices = open.pop(); choices !== undefined; choices = open.pop()) {
    const run = await interleaver.run(sessions, isolation, choices);
    await visit(run);
    for (let at = choices.length; at < run.choices.length; at += 1) {
      const before = run.choices.slice(0, at);
      for (const other of run.possible[at] ?? []) {
        if (other === run.choices[at]) continue;
        // Sessions that send the same begin in order, since exchanging them changes nothing.
        const isMirror = names.some(
          (name, twin) => twin < other && name === names[other] && !before.includes(twin),
        );
        if (!isMirror) open.push([...before, other]);
      }
    }
  }
}
