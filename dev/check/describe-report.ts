import { count, seconds } from '../../src/text.ts';
import type { Place } from '../sources/problem.ts';
import type { CheckReport } from './check-migrations.ts';
import type { GateReport } from './gate.ts';
import type { LockReport, TableImpact } from './measure-locks.ts';

/** The report for people, line by line. */
export function describeReport({ gates, locks, durationMs }: CheckReport): readonly string[] {
  const numberOf = (state: GateReport['state']) => gates.filter((gate) => gate.state === state).length;
  const skipped = gates.filter(({ state }) => state === 'not run').map(({ name }) => name);
  return [
    ...gates.flatMap(describeGate),
    ...(locks === null ? [] : describeLocks(locks)),
    `${count(numberOf('passed'), 'gate')} passed, ${numberOf('failed')} failed${skipped.length === 0 ? '' : `, ${skipped.length} NOT RUN: ${skipped.join(', ')}`} (${seconds(durationMs)})`,
  ];
}

function describeGate(gate: GateReport): readonly string[] {
  switch (gate.state) {
    case 'passed':
      return [`OK  ${gate.name}: ${gate.proves}`];
    case 'not run':
      return [`NOT RUN  ${gate.name}: ${gate.reason}`];
    case 'failed':
      return [
        `FAILED  ${gate.name}: ${count(gate.problems.length, 'problem')}. Required: ${gate.proves}`,
        ...gate.problems.map((problem) => `  ${at(problem)}  ${problem.what}\n    ${problem.remedy}`),
      ];
  }
}

function describeLocks(locks: LockReport): readonly string[] {
  if (locks.state === 'not measured') return [`LOCKS  of current.sql were not measured: ${locks.reason}`];
  if (locks.impacts.length === 0) return ['LOCKS  current.sql takes no lock on an existing table'];
  return [
    'LOCKS  of current.sql, each held until the migration ends:',
    ...locks.impacts.map((impact) => `  ${at(impact)}  ${describeImpact(impact)}\n    ${impact.statement}`),
  ];
}

function describeImpact({ table, lock, blocks, ...effects }: TableImpact): string {
  const parts = [
    ...(lock === null ? [] : [`${lock} blocks ${blocks}`]),
    ...(effects.drops ? ['drops it'] : []),
    ...(effects.rewrites ? ['rewrites the whole table'] : []),
    ...(effects.scans ? ['reads the whole table'] : []),
    ...(effects.rowsWritten === 0 ? [] : [`writes ${effects.rowsWritten} of the sample's rows`]),
  ];
  return `${table}: ${parts.join('; ')}`;
}

function at({ file, line }: Place): string {
  return line === null ? file : `${file}:${line}`;
}
