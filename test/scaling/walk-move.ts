import { until } from '../support/until.ts';
import type { NumberedDatabase, TwoDatabases } from './two-databases.ts';

/** What a function of one server returns for one of the other. */
export type Receipt = Readonly<Record<string, unknown>>;

/** The receipts of a move, by the step that returned them. */
export type Receipts = Readonly<Partial<Record<'ticket' | 'early' | 'late' | 'release' | 'finish', Receipt>>>;

export const STEPS = [
  'start',
  'accept',
  'subscribe',
  'prove source',
  'prove target',
  'close',
  'prove late',
  'release',
  'receive',
  'sightings',
  'unsubscribe',
  'finish target',
  'finish source',
  'erase',
] as const;

export type Step = (typeof STEPS)[number];

/** Carries out a move between two databases step by step, by the functions alone. */
export class MoveWalk {
  #receipts: Receipts = {};
  #attempt: unknown;

  constructor(
    readonly databases: TwoDatabases,
    readonly key: string,
    readonly source: NumberedDatabase,
    readonly target: NumberedDatabase,
  ) {}

  get receipts(): Receipts {
    return this.#receipts;
  }

  /** Name of the publication and subscription. */
  get name(): string {
    return `filestore_move_${this.#receipts.ticket?.move}`;
  }

  get slot(): string {
    return String(this.#receipts.ticket?.slot);
  }

  async to(last: Step): Promise<this> {
    for (const step of STEPS.slice(0, STEPS.indexOf(last) + 1)) await this.run(step);
    return this;
  }

  async through(first: Step, last: Step = 'erase'): Promise<this> {
    for (const step of STEPS.slice(STEPS.indexOf(first), STEPS.indexOf(last) + 1)) await this.run(step);
    return this;
  }

  async run(step: Step): Promise<void> {
    await this.#actions[step]();
  }

  async subscribe({ copyData = true, from = this.source } = {}): Promise<void> {
    const { server } = this.databases;
    // Two databases of one server would wait for each other, if the subscription created its slot.
    await this.source.query("select pg_create_logical_replication_slot($1, 'pgoutput')", [this.slot]);
    await this.target.query(
      `create subscription ${this.name}
       connection 'host=${server.host} port=${server.port} dbname=${from.name} user=postgres password=${new URL(server.url).password}'
       publication ${this.name}
       with (create_slot = false, slot_name = '${this.slot}', copy_data = ${copyData})`,
    );
  }

  /** @param within How long the cut-over may take. */
  async close(within: string): Promise<void> {
    // The slot is not active for a moment when its worker starts again.
    const closed = await until(() =>
      this.#ask(this.source, 'close_mount($1, $2, $3)', [this.#receipts.early, within]).catch((error) => {
        if (error.constraint === 'moves_behind_check') return undefined;
        throw error;
      }),
    );
    this.#attempt = closed.attempt;
  }

  /** Takes the move back from wherever it is. */
  async cancel(): Promise<void> {
    await this.run('unsubscribe');
    const isKnown =
      (await this.target.query('select from filestore.moves where mount_key = $1', [this.key])).length > 0;
    const receipt = isKnown ? await this.#cancel(this.target, null) : null;
    await this.#cancel(this.source, receipt);
    await this.#dropSlot();
  }

  async #cancel(database: NumberedDatabase, receipt: unknown): Promise<Receipt> {
    const [row] = await database.query<{ receipt: Receipt }>('call filestore.cancel_move($1, $2)', [
      this.key,
      receipt,
    ]);
    return row?.receipt ?? {};
  }

  async #ask(database: NumberedDatabase, call: string, values: readonly unknown[] = []): Promise<Receipt> {
    const [row] = await database.query<{ receipt: Receipt }>(`select filestore.${call} as receipt`, [
      this.key,
      ...values,
    ]);
    return row?.receipt ?? {};
  }

  #keep(name: keyof Receipts, receipt: Receipt): void {
    this.#receipts = { ...this.#receipts, [name]: receipt };
  }

  /** Until nothing is waited for, and the receipt has the field. */
  #prove(database: NumberedDatabase, field: string, attempt?: unknown): Promise<Receipt> {
    return until(async () => {
      const receipt = await this.#ask(database, 'prove_mount($1)');
      const isOfAttempt = attempt === undefined || receipt.attempt === attempt;
      return receipt[field] === undefined || !isOfAttempt ? undefined : receipt;
    });
  }

  readonly #actions: Readonly<Record<Step, () => Promise<unknown>>> = {
    start: async () =>
      this.#keep('ticket', await this.#ask(this.source, 'start_move($1, $2)', [this.target.number])),
    accept: () => this.target.query('select filestore.accept_move($1)', [this.#receipts.ticket]),
    subscribe: () => this.subscribe(),
    'prove source': () => this.#prove(this.source, 'early'),
    'prove target': async () => this.#keep('early', await this.#prove(this.target, 'early')),
    close: () => this.close('10 min'),
    'prove late': async () => this.#keep('late', await this.#prove(this.target, 'late', this.#attempt)),
    release: async () =>
      this.#keep('release', await this.#ask(this.source, 'release_mount($1, $2)', [this.#receipts.late])),
    receive: () => this.#ask(this.target, 'receive_mount($1, $2)', [this.#receipts.release]),
    sightings: async () => {
      const [rows] = await this.source.query(
        `select coalesce(array_agg(s.node_id order by s.node_id), '{}') as ids,
                coalesce(array_agg(s.last_seen_at::text order by s.node_id), '{}') as seen,
                coalesce(array_agg(s.last_reconciled_at::text order by s.node_id), '{}') as reconciled
         from filestore.node_sightings s
         join filestore.nodes n on n.id = s.node_id
         join filestore.backend_mounts m on m.id = n.backend_mount_id
         where m.mount_key = $1`,
        [this.key],
      );
      await this.#ask(this.target, 'receive_sightings($1, $2, $3, $4)', [
        rows?.ids,
        rows?.seen,
        rows?.reconciled,
      ]);
    },
    unsubscribe: async () => {
      const values = [this.name];
      const found = await this.target.query('select from pg_subscription where subname = $1', values);
      if (found.length === 0) return;
      // In one server, a worker that still creates its slot would wait for the drop, and the drop for the worker.
      await this.target.query(`alter subscription ${this.name} disable`);
      const workers = 'select from pg_stat_subscription where subname = $1 and pid is not null';
      await until(async () => (await this.target.query(workers, values)).length === 0);
      await this.target.query(`drop subscription ${this.name}`);
    },
    'finish target': async () => this.#keep('finish', await this.#ask(this.target, 'finish_move($1)')),
    'finish source': () => this.#ask(this.source, 'finish_move($1, $2)', [this.#receipts.finish]),
    erase: () => this.source.query('call filestore.erase_mount($1)', [this.key]),
  };

  /** A subscription that is dropped drops its slot. One that was never created leaves it. */
  async #dropSlot(): Promise<void> {
    await this.source.query(
      'select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1',
      [this.slot],
    );
  }
}
