import { hasFaults, type Tally, total } from './counts.ts';
import type { TortureResult } from './torture.ts';

/** Whether the run and the check after it found no problem. */
export function isClean({ tally, checks }: TortureResult): boolean {
  return !hasFaults(tally) && checks.every((check) => check.count === 0);
}

export function renderProgress(tally: Tally, elapsedMs: number): string {
  return [
    `${Math.round(elapsedMs / 1000)} s`,
    `${total(tally.operations)} operations`,
    `${total(tally.errors)} errors`,
    `${tally.readings} readings, ${tally.wrongReadings} wrong`,
    `${tally.deadlocks} deadlocks`,
    `${tally.unexpectedErrors} unexpected errors`,
    `${tally.serverKills} server kills`,
  ].join(', ');
}

export function renderResult(result: TortureResult): string {
  const { options, serverVersion, elapsedMs, tally, recorder, checks } = result;
  const operations = total(tally.operations);
  const perSecond = Math.round(operations / (elapsedMs / 1000));
  return [
    ...table('Run', [
      ['PostgreSQL', serverVersion],
      ['seed', options.seed],
      ['workers', options.workers],
      ['tree lock', options.withoutTreeLock ? 'taken away' : 'as it is'],
      ['seconds', Math.round(elapsedMs / 1000)],
      ['operations', `${operations} (${perSecond}/s)`],
      ['commands acknowledged', recorder.endings.size],
      ['nodes acknowledged as created', recorder.created.size],
      ['versions acknowledged', recorder.written.size],
      ['idempotency keys used, and reused', `${recorder.claims.size}, ${tally.sharedKeys}`],
      ['commands settled after an error', tally.settled],
      ['server kills', tally.serverKills],
      ['backends terminated', tally.backendsTerminated],
      ['steps of a mount that moves and is erased', tally.mountsPassed],
      ['reconnects', tally.reconnects],
    ]),
    ...table('Operations', byCount(tally.operations)),
    ...table('Errors by SQLSTATE', byCount(tally.errors)),
    ...table('Must be zero', [
      ['deadlocks', tally.deadlocks],
      ['unexpected errors', tally.unexpectedErrors],
      [`wrong live readings, of ${tally.readings}`, tally.wrongReadings],
      ...checks.map((check) => [check.name, check.count] as const),
    ]),
    ...tally.faults.map((fault) => `  seen: ${fault}`),
    ...checks.flatMap((check) => check.examples.map((example) => `  ${check.name}: ${example}`)),
    '',
    isClean(result) ? 'Nothing was lost.' : 'FAULTS: see above.',
  ].join('\n');
}

type Row = readonly [string, string | number];

function byCount(counts: ReadonlyMap<string, number>): readonly Row[] {
  return [...counts].sort((one, other) => other[1] - one[1]);
}

function table(title: string, rows: readonly Row[]): readonly string[] {
  const width = Math.max(...rows.map(([label]) => label.length), 0);
  return ['', title, ...rows.map(([label, value]) => `  ${label.padEnd(width)}  ${value}`)];
}
