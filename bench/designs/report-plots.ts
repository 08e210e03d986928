import { init } from 'echarts';
import { find, type Operation, type Report } from './measurement-store.ts';

/** A card that is readable on a light and on a dark page. */
const PAPER = '#ffffff';
const INK = '#24292f';
const ROW = 19;

export interface Plot {
  readonly file: string;
  readonly title: string;
  readonly svg: string;
}

const PLOTS = [
  ['lookups.svg', 'Lookups: median time of a call', ['Lookups'], 'ms'],
  ['totals.svg', 'Totals: median time of a call', ['Totals'], 'ms'],
  ['creates.svg', 'Creates, overwrites and deletes a second', ['Writing files'], '/s'],
  ['trees.svg', 'Trees: seconds of a change', ['Trees'], 's'],
  ['space.svg', 'Space: bytes per node after a load', ['Space'], 'bytes'],
] as const;

export function drawPlots(report: Report): readonly Plot[] {
  return PLOTS.flatMap(([file, title, groups, unit]) => {
    const operations = report.operations.filter(
      (operation) =>
        (groups as readonly string[]).includes(operation.group) &&
        operation.unit === unit &&
        // Of this schema alone: a bar without another one beside it compares nothing.
        new Set(
          report.measurements
            .filter((found) => found.operation === operation.key)
            .map(({ design }) => design),
        ).size > 1,
    );
    return operations.length === 0 ? [] : [{ file, title, svg: draw(report, title, operations, unit) }];
  });
}

function draw(
  report: Report,
  title: string,
  operations: readonly Operation[],
  unit: Operation['unit'],
): string {
  const designs = report.designs.filter(({ key }) =>
    operations.some((operation) => find(report, operation.key, key)),
  );
  const height = 110 + operations.length * (designs.length * 9 + ROW);
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: 880, height });
  try {
    const isLogarithmic = unit !== 'bytes';
    const figures = operations.flatMap(({ key }) =>
      designs.flatMap((design) => find(report, key, design.key)?.p50 ?? []),
    );
    // Bars would begin at 1, in the middle of the plot.
    const least = isLogarithmic ? 10 ** Math.floor(Math.log10(Math.min(...figures)) - 0.05) : 0;
    chart.setOption({
      animation: false,
      backgroundColor: PAPER,
      textStyle: { fontFamily: 'sans-serif', color: INK },
      title: { text: title, left: 12, top: 10, textStyle: { fontSize: 15, color: INK } },
      legend: { top: 36, left: 12, itemWidth: 14, itemGap: 24, textStyle: { color: INK } },
      grid: { left: 300, right: 40, top: 72, bottom: 44 },
      xAxis: {
        type: isLogarithmic ? 'log' : 'value',
        min: least,
        startValue: least,
        name: `${unit === '/s' ? 'calls a second' : unit}${isLogarithmic ? ', logarithmic' : ''}`,
        nameLocation: 'middle',
        nameGap: 28,
        axisLabel: { color: INK },
        splitLine: { lineStyle: { color: '#d0d7de' } },
      },
      yAxis: {
        type: 'category',
        inverse: true,
        data: operations.map((operation) => operation.title),
        axisLabel: { width: 280, overflow: 'break', color: INK },
        axisTick: { show: false },
      },
      series: designs.map(({ key, title: name, color }) => ({
        type: 'bar',
        name,
        barWidth: 7,
        barGap: '15%',
        itemStyle: { color },
        data: operations.map((operation) => find(report, operation.key, key)?.p50 ?? null),
      })),
    });
    return `${chart.renderToSVGString()}\n`;
  } finally {
    chart.dispose();
  }
}
