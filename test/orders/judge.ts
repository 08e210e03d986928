import { REFUSAL_REASONS } from '../../src/sql/reasons.ts';
import { everyOrder, type Interleaver, type Refusal, type Run, type Session } from './interleave.ts';
import { readState, type World } from './world.ts';

/** Sessions that work at once, at one isolation level. */
export interface Case {
  readonly sessions: readonly Session[];
  readonly isolation: string;
  /** Its transactions write existing rows out of order, which the docs say can deadlock. */
  readonly mayDeadlock: boolean;
  /** A mount moves to another server. */
  readonly isMoving: boolean;
}

export interface Difference {
  readonly of: string;
  readonly what: string;
  readonly steps: readonly string[];
}

export interface Tally {
  runs: number;
  waits: number;
  /** How often a step was refused with this reason. */
  readonly refusals: Map<string, number>;
  /** The same, where no serial order has this refusal. */
  readonly onlyBetween: Map<string, number>;
  /** Documented answers of READ COMMITTED that no serial order has, by why they are right. */
  readonly expected: Map<string, number>;
  readonly differences: Difference[];
}

export const newTally = (): Tally => ({
  runs: 0,
  waits: 0,
  refusals: new Map(),
  onlyBetween: new Map(),
  expected: new Map(),
  differences: [],
});

export const nameOf = ({ sessions, isolation }: Case): string =>
  `${sessions.map(({ name }) => name).join(', ')}${isolation === 'read committed' ? '' : ` (${isolation})`}`;

interface Expected {
  /** Parts of the names of the sessions. */
  readonly of: readonly string[];
  readonly why: string;
  /** Each line of the difference. Default: any. */
  readonly lines?: RegExp;
}

/** What the docs say that no serial order has. */
const EXPECTED: readonly Expected[] = [
  {
    of: ['purge'],
    why: 'a purge takes unlocked mounts first',
    lines: /^ *[+-] (node .* deleted |version of )/,
  },
  { of: ['prune history', 'revert'], why: 'a prune and a writer do not wait for each other' },
  { of: ['copy a', 'update a/s/h and b/f'], why: 'a copy reads its source in one snapshot, before it waits' },
  { of: ['expire commands', 'work on job'], why: 'a command at which a transaction works is not expired' },
];

const REASONS: ReadonlySet<string> = new Set(REFUSAL_REASONS);

/** A result that orders can have in common: what the committed transactions returned, and what is in the tables. */
interface Outcome {
  readonly answers: readonly string[];
  readonly picture: readonly string[];
}

export class Judge {
  readonly #world: World;
  readonly #interleaver: Interleaver;
  /** The outcomes of the serial orders of some sessions. */
  readonly #serial = new Map<string, Promise<readonly Outcome[]>>();

  constructor(world: World, interleaver: Interleaver) {
    this.#world = world;
    this.#interleaver = interleaver;
  }

  /** Runs every order of a case, and compares each with the serial orders of the transactions that it committed. */
  async judge(one: Case, tally: Tally): Promise<void> {
    const { sessions, isolation } = one;
    const kept: { run: Run; outcome: Outcome }[] = [];
    const report = (what: string, { steps }: Run) => tally.differences.push({ of: nameOf(one), what, steps });
    await everyOrder(this.#interleaver, sessions, isolation, async (run) => {
      tally.runs += 1;
      tally.waits += run.waits;
      const { picture, faults } = await readState(this.#world);
      for (const fault of faults) report(`broken: ${fault}`, run);
      for (const refusal of refusalsOf(run)) {
        count(tally.refusals, reasonOf(refusal));
        if (!isDocumented(refusal, one)) report(`undocumented: ${refusal.code} ${refusal.message}`, run);
      }
      kept.push({ run, outcome: outcomeOf(run, picture) });
    });
    const usual = kept.filter(({ run }) => run.isSerial).flatMap(({ run }) => refusalsOf(run).map(reasonOf));
    const serial = kept.filter(({ run }) => run.isSerial && isWhole(run, sessions));
    this.#serial.set(keyOf(sessions, isolation), Promise.resolve(serial.map(({ outcome }) => outcome)));
    for (const { run, outcome } of kept) {
      if (run.isSerial) continue;
      for (const reason of refusalsOf(run).map(reasonOf)) {
        if (!usual.includes(reason)) count(tally.onlyBetween, `${reason} (${nameOf(one)})`);
      }
      const allowed = await this.#outcomesOf(committedOf(sessions, run), isolation);
      if (allowed.some((serialOutcome) => isEqual(serialOutcome, outcome))) continue;
      const difference = differenceTo(allowed, outcome);
      const expected = EXPECTED.find(
        ({ of, lines = /^/ }) =>
          of.every((part) => nameOf(one).includes(part)) &&
          difference.split('\n').every((line) => lines.test(line)),
      );
      if (expected !== undefined) count(tally.expected, expected.why);
      else report(`differs from every serial order:\n${difference}`, run);
    }
  }

  #outcomesOf(sessions: readonly Session[], isolation: string): Promise<readonly Outcome[]> {
    const key = keyOf(sessions, isolation);
    const known = this.#serial.get(key) ?? this.#runSerially(sessions, isolation);
    this.#serial.set(key, known);
    return known;
  }

  async #runSerially(sessions: readonly Session[], isolation: string): Promise<readonly Outcome[]> {
    const outcomes: Outcome[] = [];
    for (const choices of serialChoices(sessions)) {
      const run = await this.#interleaver.run(sessions, isolation, choices);
      if (!isWhole(run, sessions)) continue;
      const { picture } = await readState(this.#world);
      outcomes.push(outcomeOf(run, picture));
    }
    return outcomes;
  }
}

const keyOf = (sessions: readonly Session[], isolation: string): string =>
  isolation + JSON.stringify(sessions.map(({ name, transactions }) => [name, transactions.length]));

const countOfSteps = ({ statements, end }: Session['transactions'][number]): number =>
  statements.length + (end === 'none' ? 0 : 1);

/** Every order of whole transactions. */
function serialChoices(sessions: readonly Session[]): readonly (readonly number[])[] {
  const next = sessions.findIndex(({ transactions }) => transactions.length > 0);
  if (next === -1) return [[]];
  return sessions.flatMap(({ transactions: [first, ...others] }, at) => {
    if (first === undefined) return [];
    const rest = sessions.map((each, index) => (index === at ? { ...each, transactions: others } : each));
    const steps = Array.from({ length: countOfSteps(first) }, () => at);
    return serialChoices(rest).map((choices) => [...steps, ...choices]);
  });
}

const willCommit = ({ transactions }: Session): number =>
  transactions.filter(({ end }) => end !== 'rollback').length;

const isWhole = (run: Run, sessions: readonly Session[]): boolean =>
  sessions.every((session, at) => run.sessions[at]?.committed === willCommit(session));

/** The sessions without what they rolled back. */
const committedOf = (sessions: readonly Session[], run: Run): readonly Session[] =>
  sessions.map((session, at) => ({
    ...session,
    transactions: session.transactions
      .filter(({ end }) => end !== 'rollback')
      .slice(0, run.sessions[at]?.committed),
  }));

const outcomeOf = (run: Run, picture: readonly string[]): Outcome => ({
  answers: run.sessions.map(({ rows }) => rows.join(' ')),
  picture,
});

const refusalsOf = (run: Run): readonly Refusal[] => run.sessions.flatMap(({ refusals }) => refusals);

const reasonOf = ({ code, reason }: Refusal): string =>
  code.startsWith('FS') ? reason : `${code} ${reason}`.trim();

const count = (times: Map<string, number>, what: string) => times.set(what, (times.get(what) ?? 0) + 1);

/** A refusal that docs/functions.md lists for functions, or another document for the owner. */
function isDocumented({ code, reason }: Refusal, { sessions, isolation, mayDeadlock }: Case): boolean {
  if (code === '40001')
    return isolation !== 'read committed' || sessions.some((session) => session.isolation !== undefined);
  if (code === '40P01') return mayDeadlock;
  return (
    (code.startsWith('FS') &&
      (REASONS.has(reason) || reason === 'backend_mounts_active' || /^(moves|import)_/.test(reason))) ||
    ['backend_mounts_place_excl', 'backend_mounts_mount_key_key'].includes(reason)
  );
}

const isEqual = (one: Outcome, other: Outcome): boolean =>
  one.picture.join('\n') === other.picture.join('\n') && one.answers.join('\n') === other.answers.join('\n');

/** What distinguishes an outcome from the serial one that is nearest to it. */
function differenceTo(allowed: readonly Outcome[], { picture, answers }: Outcome): string {
  const lines = (outcome: Outcome) => [
    ...outcome.picture,
    ...outcome.answers.map((answer, at) => `session ${at + 1} got ${answer}`),
  ];
  const found = lines({ picture, answers });
  const all = allowed.map((outcome) => {
    const expected = lines(outcome);
    return [
      ...expected.filter((line) => !found.includes(line)).map((line) => `  - ${line}`),
      ...found.filter((line) => !expected.includes(line)).map((line) => `  + ${line}`),
    ];
  });
  return (all.sort((one, other) => one.length - other.length)[0] ?? ['  no serial order commits these']).join(
    '\n',
  );
}
