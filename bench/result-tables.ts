import type { Environment } from './bench-server.ts';
import type { Context } from './context.ts';
import { type Result, type Target, thousands } from './measure.ts';

export function renderEnvironment(
  environment: Environment & { readonly load: string },
  { rounds, seconds }: Pick<Context, 'rounds' | 'seconds'>,
): string {
  const { postgres, fsync, settings, cores, loadBefore, load } = environment;
  return [
    `PostgreSQL ${postgres}, fsync ${fsync}, ${settings}`,
    `${cores} cores, load before ${loadBefore.toFixed(1)}, load made by ${load}, ${rounds} rounds of ${seconds} s\n`,
  ].join('\n');
}

export function renderResults(results: readonly Result[]): string {
  const rows = [
    ['what', 'here', 'other', 'ratio', 'spread', 'target', 'reached'],
    ...results.map(({ what, unit, here, other, ratio, spread, target, reached }) => [
      what,
      figure(here, unit),
      other === null ? '' : figure(other, unit),
      ratio === null ? '' : ratio.toFixed(2),
      spread === null ? '' : spread.map((value) => value.toFixed(2)).join('–'),
      target === null ? '' : renderTarget(target, unit),
      reached === null ? '' : reached ? 'yes' : 'no',
    ]),
  ];
  const widths = [0, 1, 2, 3, 4, 5, 6].map((column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, column) =>
          column === 0 || column > 4 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export function renderTarget({ bound, value, of }: Target, unit: Result['unit']): string {
  return `${bound === 'at least' ? '≥' : '≤'} ${of === 'ratio' ? String(value) : figure(value, unit)}`;
}

function figure(value: number, unit: Result['unit']): string {
  if (unit === 'count') return String(value);
  if (unit === 'bytes') return `${thousands(Math.round(value))} B`;
  if (unit === 'instructions') return thousands(Math.round(value));
  const digits = unit === '/s' ? 0 : value < 10 ? 2 : 1;
  return `${value.toFixed(digits)} ${unit}`;
}
