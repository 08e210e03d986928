import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Report } from './measurement-store.ts';
import { drawPlots } from './report-plots.ts';
import { renderReport } from './report-text.ts';

/** Writes report.md and its plots into the folder of report.json; returns the names of all files. */
export function writeReport(folder: string, report: Report, previous: string | undefined): readonly string[] {
  const plots = drawPlots(report);
  const earlier = previous === undefined ? undefined : (JSON.parse(readFileSync(previous, 'utf8')) as Report);
  const files = [
    ...plots.map(({ file, svg }) => [join(folder, file), svg] as const),
    [join(folder, 'report.md'), renderReport(report, plots, earlier)] as const,
  ];
  for (const [file, text] of files) writeFileSync(file, text);
  return files.map(([file]) => file);
}
