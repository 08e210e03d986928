import { type Result, thousands } from '../measure.ts';
import { renderTarget } from '../result-tables.ts';
import { type Behind, findBehind } from './design-targets.ts';
import { find, type Measurement, type Operation, type Report } from './measurement-store.ts';
import { reasonFor } from './operation-reasons.ts';
import { PUBLISHED } from './published-figures.ts';
import { type Disagreement, disagreements, ranksOf } from './ranking.ts';
import type { Plot } from './report-plots.ts';

/** The whole report as Markdown. */
export function renderReport(report: Report, plots: readonly Plot[], previous: Report | undefined): string {
  return `${[
    `# Comparison of designs: ${thousands(report.nodes)} nodes`,
    introduction(report),
    '## Targets',
    targets(report),
    ...groups(report, plots),
    '## Where another design is ahead',
    behind(report),
    '## What goes wrong when connections meet',
    races(report),
    '## What the designs are',
    facts(report),
    '## Published figures',
    published(report),
    ...(previous === undefined
      ? []
      : ['## Agreement with an earlier run', agreement(disagreements(previous, report))]),
  ].join('\n\n')}\n`;
}

function introduction(report: Report): string {
  const { environment, calibrations, sizes, unavailable } = report;
  const { postgres, fsync, settings, cores, loadBefore, load, collation } = environment;
  const state = report.finished
    ? ''
    : '\n\n**This run was interrupted or is still running: figures are missing.**';
  const missing = unavailable.map(({ key, why }) => `\n\nNot measured: (${key}), since ${why}.`).join('');
  return `Made by \`${report.command}\`, started ${report.startedAt}.
PostgreSQL ${postgres}, fsync ${fsync}, ${settings}, default collation ${collation}; ${cores} cores, load of the machine
before ${loadBefore.toFixed(1)}; load made by ${load}. ${report.rounds} rounds, ${report.seconds} s of load each, longer at 32 connections; in each round the
designs take turns. Reads have several turns in a round, changes of large trees fewer rounds.
Subtrees have ${[sizes.small, sizes.large, sizes.wide].map(thousands).join(', ')} nodes. Compare figures within this report only.${batches(report)}${state}${missing}

${table(
  ['the machine', 'an empty statement', 'a node by id', 'write 8 KiB and fsync'],
  calibrations.map(({ when, emptyStatementMs, keyLookupMs, fsyncMs }) => [
    when,
    figure(emptyStatementMs, 'ms'),
    figure(keyLookupMs, 'ms'),
    figure(fsyncMs, 'ms'),
  ]),
)}

A figure is the median of the rounds. Each round of a statement is the median of its calls, as a client sees them. Equal
means within 10 %; **bold** is the best of the designs and all that equal it. A ratio is the median of the rounds' ratios,
not the ratio of the medians. The unguarded twin has this schema's columns
and indexes without keys, rules and triggers. It keeps no promise, and takes part in no ranking: it is the floor of what Postgres takes
for these rows. The alternatives have tombstones, versions in a history, and indexes for each lookup, as the
service needs them.`;
}

/** Says which designs were measured one after the other: the machine may have changed in between. */
function batches({ calibrations }: Report): string {
  const loaded = calibrations.flatMap(({ when }) => when.match(/^before (.+)$/)?.[1] ?? []);
  if (loaded.length < 2) return '';
  return `

**The designs were not all loaded at the same time.** Only those loaded together took turns: first ${loaded.map((names) => `(${names})`).join(', then ')}. The
next table shows how the machine changed in between. Small differences between these groups say nothing.`;
}

function targets({ targets: results }: Report): string {
  const missed = results.filter(({ reached }) => !reached);
  const list = table(
    ['what', 'here', 'other', 'ratio', 'spread', 'target', 'reached'],
    results.map((result) => [
      result.what,
      resultFigure(result, result.here),
      result.other === null ? '' : resultFigure(result, result.other),
      result.ratio?.toFixed(2) ?? '',
      result.spread?.map((value) => value.toFixed(2)).join('–') ?? '',
      result.target === null ? '' : renderTarget(result.target, result.unit),
      result.reached ? 'yes' : '**no**',
    ]),
  );
  if (missed.length === 0) return list;
  const why = missed.map(({ what, operation }) => `- ${what}: ${reasonFor(operation)}.`);
  return `${list}\n\nWhat the missed ones pay for. The other figure is the floor:\n\n${why.join('\n')}`;
}

function resultFigure({ unit }: Result, value: number): string {
  return unit === 'count' || unit === 'MB' || unit === 'instructions' ? String(value) : figure(value, unit);
}

function groups(report: Report, plots: readonly Plot[]): readonly string[] {
  const names = [...new Set(report.operations.map(({ group }) => group))];
  return names.flatMap((name) => {
    const operations = report.operations.filter(({ group }) => group === name);
    const plot = plots.find(
      ({ title }) =>
        name.startsWith(title.split(/[ :]/)[0] ?? '') ||
        (name === 'Writing files' && title.startsWith('Creates')),
    );
    return [
      `## ${name}`,
      ...(plot === undefined ? [] : [`![${plot.title}](${plot.file})`]),
      medians(report, operations),
      ...details(report, operations),
    ];
  });
}

function medians(report: Report, operations: readonly Operation[]): string {
  const designs = report.designs.filter(({ key }) =>
    operations.some((operation) => find(report, operation.key, key)),
  );
  return table(
    ['', ...designs.map(({ title }) => title)],
    operations.map((operation) => {
      const ranks = ranksOf(report, operation);
      return [
        operation.note === undefined ? operation.title : `${operation.title} (${operation.note})`,
        ...designs.map(({ key }) => {
          const found = find(report, operation.key, key);
          if (found === undefined) return '–';
          const text = figure(found.p50, operation.unit);
          return ranks.get(key) === 1 && ranks.size > 1 ? `**${text}**` : text;
        }),
      ];
    }),
  );
}

function details(report: Report, operations: readonly Operation[]): readonly string[] {
  const rows = operations.flatMap((operation) =>
    report.designs.flatMap(({ key, title }) => {
      const found = find(report, operation.key, key);
      return found === undefined || !hasDetails(found)
        ? []
        : [
            [
              operation.title,
              title,
              found.p99 === null ? '' : figure(found.p99, operation.unit),
              found.buffers?.toLocaleString('en') ?? '',
              found.walBytes === null ? '' : figure(found.walBytes, 'bytes'),
              spread(found, operation),
            ],
          ];
    }),
  );
  if (rows.length === 0) return [];
  const text = table(['', 'design', 'p99', 'pages', 'WAL', 'least and most of the rounds'], rows);
  return [`<details><summary>99th percentile, pages, WAL, spread</summary>\n\n${text}\n\n</details>`];
}

const hasDetails = ({ p99, buffers, walBytes, rounds }: Measurement) =>
  p99 !== null || buffers !== null || walBytes !== null || rounds.length > 1;

const spread = ({ rounds }: Measurement, { unit }: Operation) =>
  rounds.length < 2 ? '' : `${figure(Math.min(...rounds), unit)} – ${figure(Math.max(...rounds), unit)}`;

function behind(report: Report): string {
  const found = findBehind(report);
  if (found.length === 0) return 'Nowhere in this run.';
  const operations = [...new Set(found.map(({ operation }) => operation))];
  const rows = operations.map((operation) => {
    const ahead = found.filter((one) => one.operation === operation);
    const missed = ahead.filter(({ isAllowed }) => !isAllowed);
    const floor = find(report, operation.key, 'twin');
    return [
      operation.title,
      ahead.map(renderBehind).join(', '),
      missed.length === 0 ? 'yes' : `**no**: ${missed.map(({ design }) => `(${design})`).join(' ')}`,
      figure(find(report, operation.key, 'this')?.p50 ?? Number.NaN, operation.unit),
      floor === undefined ? '' : figure(floor.p50, operation.unit),
    ];
  });
  const reasons = [...new Set(operations.map(({ key }) => reasonFor(key)))];
  return `The target: ahead or equal everywhere, and at most 1.5 times behind where a design has its speciality (marked *).
The floor is what the unguarded twin takes: this schema's columns and indexes, where that was measured.

${table(['operation', 'ahead of this schema, times', 'allowed', 'this schema', 'floor'], rows)}

What this schema pays for there:

${reasons
  .map(
    (reason) =>
      `- ${operations
        .filter(({ key }) => reasonFor(key) === reason)
        .map(({ title }) => title)
        .join('; ')}: ${reason}.`,
  )
  .join('\n')}`;
}

const renderBehind = ({ design, times, isSpeciality }: Behind) =>
  `(${design}) ${times.toFixed(times < 10 ? 2 : 0)}${isSpeciality ? '*' : ''}`;

function races(report: Report): string {
  const titles = new Map(report.designs.map(({ key, title }) => [key, title]));
  return `Several connections wrote for ${report.seconds} s (in the third race: up to 100 times), on a mount that nothing else used, and then the rows were
counted. A refused write is an answer that a caller expects. Everything right of it is damage, except deadlocks, which cost
a repetition. Fewer writes in the same time are the price of waiting for the other connection.

${table(
  [
    'race',
    'design',
    'writes',
    'refused',
    'deadlocks',
    'live below a deleted directory',
    'not reached from the root',
    'wrong path, ancestor or total',
  ],
  report.races.map(({ race, design, writes, refused, deadlocks, orphans, unreachable, wrong }) => [
    race,
    titles.get(design) ?? design,
    ...[writes, refused, deadlocks].map(thousands),
    ...[orphans, unreachable, wrong].map((count) => (count === 0 ? '0' : `**${thousands(count)}**`)),
  ]),
)}`;
}

function facts({ designs }: Report): string {
  return table(
    ['design', 'what it is', 'what it does not give'],
    designs.flatMap(({ title, description }) =>
      description === undefined ? [] : [[title, description.is, description.lacks]],
    ),
  );
}

function published(report: Report): string {
  return `Measured by others on other machines, with other promises. They show the order of magnitude.
JuiceFS measured calls of a mounted file system: 12 processes of mdtest on 3 machines, over a network, and a database server with 4 cores.
Here a call is an SQL statement, and the clients ran on one machine.

${table(
  ['system', 'what', 'published', 'nearest here', 'this schema, on this machine', 'source'],
  PUBLISHED.map(({ system, what, figure: value, nearest, source }) => {
    const operation = report.operations.find(({ key }) => key === nearest);
    const found = find(report, nearest, 'this');
    const size = nearest === 'copy' ? report.sizes.small : undefined;
    return [
      system,
      what,
      value,
      operation?.title ?? '',
      operation === undefined || found === undefined
        ? ''
        : size === undefined
          ? figure(found.p50, operation.unit)
          : `${thousands(Math.round(size / found.p50))} entries/s`,
      `[${source.title}](${source.url})`,
    ];
  }),
)}`;
}

function agreement(found: readonly Disagreement[]): string {
  const opposite = found.filter(({ kind }) => kind === 'opposite');
  const shifted = found.length - opposite.length;
  const lines = opposite.map(({ operation, one, other }) => `- ${operation}: ${one} and ${other}`);
  return [
    `Pairs of designs in opposite order: ${opposite.length}. Pairs that are equal in one of the runs: ${shifted}.`,
    ...lines,
  ].join('\n');
}

/** Three significant digits. */
export function figure(value: number, unit: Operation['unit']): string {
  const rounded = value >= 100 ? thousands(Math.round(value)) : Number(value.toPrecision(3)).toString();
  return unit === 'bytes' ? `${rounded} B` : unit === '/s' ? `${rounded}/s` : `${rounded} ${unit}`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}
