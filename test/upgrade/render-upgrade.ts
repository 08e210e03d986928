import { migrationSettings } from '../../src/index.ts';
import { seconds } from '../../src/text.ts';
import type { Change } from './deploy.ts';
import type { Wait } from './statement-record.ts';
import type { UpgradeResult } from './upgrade.ts';

/** The statements of one class, in all services. */
interface ClassSummary {
  readonly name: string;
  readonly count: number;
  readonly refusals: Readonly<Record<string, number>>;
  /** The statement that comes nearest to its bound, or exceeds it most, while the database was changed. */
  readonly longest: WaitAtChange | undefined;
  /** The longest one at other times. */
  readonly otherwiseMs: number;
}

interface WaitAtChange extends Wait {
  /** The changes during it. */
  readonly changes: readonly Change[];
  /** How long docs/operations.md lets a statement wait for these. */
  readonly boundMs: number;
}

/** The least that a statement may take on a busy machine without waiting for a migration. */
const OWN_TIME_MS = 1000;

function summarize({ services, changes }: UpgradeResult): readonly ClassSummary[] {
  const names = [...new Set(services.flatMap(({ classes }) => Object.keys(classes)))];
  return names.map((name) => {
    const records = services.flatMap(({ classes }) => classes[name] ?? []);
    const waits = waitsAt(
      records.flatMap((record) => record.waits),
      changes,
    );
    const refusals: Record<string, number> = {};
    for (const [reason, count] of records.flatMap((record) => Object.entries(record.refusals))) {
      refusals[reason] = (refusals[reason] ?? 0) + count;
    }
    const [longest] = waits.filter((wait) => wait.changes.length > 0).sort(byExcess);
    const [otherwise] = waits.filter((wait) => wait.changes.length === 0).sort(byDuration);
    const count = records.reduce((sum, record) => sum + record.count, 0);
    return { name, count, refusals, longest, otherwiseMs: otherwise?.durationMs ?? 0 };
  });
}

const byDuration = (one: Wait, other: Wait) => other.durationMs - one.durationMs;
const byExcess = (one: WaitAtChange, other: WaitAtChange) =>
  other.durationMs - other.boundMs - (one.durationMs - one.boundMs);

/** A statement may take as long as it takes at other times, as a fold does whose mounts others write to. */
function waitsAt(waits: readonly Wait[], all: readonly Change[]): readonly WaitAtChange[] {
  const withChanges = waits.map((wait) => {
    const endedAtMs = wait.startedAtMs + wait.durationMs;
    const changes = all.filter(({ fromMs, toMs }) => wait.startedAtMs < toMs && endedAtMs > fromMs);
    return { ...wait, changes };
  });
  const ownMs = new Map<string, number>();
  for (const { statement, durationMs, changes } of withChanges) {
    if (changes.length === 0) ownMs.set(statement, Math.max(ownMs.get(statement) ?? OWN_TIME_MS, durationMs));
  }
  const { lockTimeoutMs } = migrationSettings({});
  return withChanges.map((wait) => {
    const workMs = wait.changes.reduce(
      (sum, { fromMs, toMs, locks }) => sum + (locks ? toMs - fromMs : 0),
      0,
    );
    return { ...wait, boundMs: lockTimeoutMs + workMs + (ownMs.get(wait.statement) ?? OWN_TIME_MS) };
  });
}

/** Statements that waited for longer than docs/operations.md says. */
export function findLongWaits(result: UpgradeResult): readonly string[] {
  return summarize(result).flatMap(({ name, longest }) =>
    longest === undefined || longest.durationMs <= longest.boundMs
      ? []
      : `${name}: ${describe(longest)}, which is more than ${seconds(longest.boundMs)}`,
  );
}

export function renderUpgrade(result: UpgradeResult): string {
  const { from, to, applied, changes, faults } = result;
  const attempts = changes.filter(({ name }) => applied.includes(name));
  return [
    `From ${from} to ${to}: ${applied.length} migrations in ${attempts.length} attempts`,
    ...changes.map(({ name, fromMs, toMs }) => `  ${String(toMs - fromMs).padStart(7)} ms  ${shorten(name)}`),
    ...summarize(result).flatMap((summary) => [
      `${summary.name}: ${summary.count} statements`,
      `  refused and repeated: ${reasonsOf(summary)}`,
      `  longest: ${summary.longest === undefined ? 'none' : describe(summary.longest)}; at other times ${seconds(summary.otherwiseMs)}`,
    ]),
    ...faults.map((fault) => `FAULT  ${fault}`),
    faults.length === 0
      ? 'No request failed, and no row was lost or changed.'
      : `${faults.length} faults: see above.`,
  ].join('\n');
}

function reasonsOf({ refusals }: ClassSummary): string {
  const reasons = Object.entries(refusals).map(([reason, count]) => `${reason} ${count}`);
  return reasons.length === 0 ? 'none' : reasons.join(', ');
}

function describe({ durationMs, changes, statement }: WaitAtChange): string {
  const names = changes.map(({ name }) => shorten(name));
  return `${seconds(durationMs)} during ${[...new Set(names)].join(', ')}: ${statement}`;
}

const shorten = (name: string) => name.replaceAll(/\s+/g, ' ').slice(0, 60);
