import { execFile, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { SpanStatusCode } from '@opentelemetry/api';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { packageFolder } from '../harness/compiled.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { type CliResult, collect } from './support/command-line/command-line.ts';
import { ENCODED_SECRET, leaksIn } from './support/command-line/secret.ts';
import { databaseForEachTest } from './support/databases/test-database.ts';
import { copyStagedPackage, type StagedPackage } from './support/packages/staged-package.ts';
import type { RecordedSpan, Telemetry } from './support/processes/in-memory-telemetry.ts';

const database = databaseForEachTest();
const runbook = readFileSync(join(PACKAGE_ROOT, 'docs', 'operations.md'), 'utf8');
let copy: StagedPackage;

beforeAll(() => {
  copy = copyStagedPackage({ sources: true });
  const [, code = ''] = /^```ts\n([\s\S]*?onEvent: traceRun\(\)[\s\S]*?)^```$/m.exec(runbook) ?? [];
  // As installed, the package has no TypeScript.
  writeFileSync(join(copy.folder, 'trace.ts'), code.replace("'@apphub/filestore'", "'./src/index.ts'"));
});
afterAll(() => copy.remove());

/** Runs the program of docs/operations.md with providers that record. */
async function runTraced(url: string): Promise<CliResult & Telemetry> {
  const recorder = join(packageFolder(), 'test', 'support', 'processes', 'in-memory-telemetry.js');
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', '--import', pathToFileURL(recorder).href, 'trace.ts'],
    {
      cwd: copy.folder,
      env: { PATH: process.env.PATH, DATABASE_URL: url, FILESTORE_MIGRATION_CONNECT_WAIT_MS: '0' },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  const result = await collect(child);
  const telemetry = /^TELEMETRY (.*)$/m.exec(result.stdout)?.[1] ?? expect.fail(result.output);
  return { ...result, ...JSON.parse(telemetry) };
}

/** The root, and its children in the order in which they began. Fails if another span has no parent among them. */
function treeOf(spans: readonly RecordedSpan[]) {
  const [root, ...others] = spans.filter(({ parentSpanId }) => parentSpanId === undefined);
  if (root === undefined || others.length > 0) return expect.fail('there is not exactly one root');
  const children = spans.filter(({ parentSpanId }) => parentSpanId === root.spanId);
  expect(children).toHaveLength(spans.length - 1);
  expect(new Set(spans.map(({ traceId }) => traceId)).size).toBe(1);
  return { root, children: children.sort((a, b) => Number(a.startTime) - Number(b.startTime)) };
}

describe('the program in docs/operations.md that traces a run', () => {
  test('has the types of the package', async () => {
    const compiler = join(PACKAGE_ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
    const config = { extends: './tsconfig.json', include: ['trace.ts'] };
    writeFileSync(join(copy.folder, 'tsconfig.trace.json'), JSON.stringify(config));
    const { stdout } = await promisify(execFile)(process.execPath, [compiler, '-p', 'tsconfig.trace.json'], {
      cwd: copy.folder,
    }).catch((error) => ({ stdout: `${error.stdout}${error.stderr}` }));
    expect(stdout).toBe('');
  });

  test('makes one span of a run that applied migrations, and within it one of each part', async () => {
    const { exitCode, spans, values } = await runTraced(database().url);
    expect(exitCode).toBe(0);
    const { root, children } = treeOf(spans);
    const attributes = {
      'db.system.name': 'postgresql',
      'db.namespace': database().name,
      'filestore.server_version': expect.stringMatching(/^\d+/),
      'filestore.attempt': 1,
    };
    expect(root).toMatchObject({ name: 'filestore run', attributes });
    expect(children.map(({ name, attributes }) => [name, attributes])).toEqual([
      ['filestore connect', { ...attributes, 'filestore.server_version': undefined }],
      ['filestore survey', attributes],
      ['filestore lock', attributes],
      ['filestore checks', attributes],
      ...copy.staged.map((filename) => [
        'filestore migration',
        { ...attributes, 'filestore.migration': filename },
      ]),
      ['filestore verify', attributes],
    ]);
    for (const { name, startTime, endTime, status } of [root, ...children]) {
      expect(Number(startTime), name).toBeGreaterThanOrEqual(Number(root.startTime));
      expect(Number(endTime), name).toBeGreaterThan(Number(startTime));
      expect(Number(endTime), name).toBeLessThanOrEqual(Number(root.endTime));
      expect(status, name).toBeUndefined();
    }
    expect(values.map(({ attributes }) => attributes)).toContainEqual({ 'filestore.span': 'run' });
    expect(values).toHaveLength(spans.length);
    for (const { metric, unit } of values)
      expect([metric, unit]).toEqual(['filestore.migration.duration', 's']);
  });

  test('marks the run and the migration that failed, with the code and the SQLSTATE', async () => {
    await database().query('create schema staged; create table staged.second_begun ()');
    const [first, second] = copy.staged;
    const { exitCode, spans, values } = await runTraced(database().url);
    expect(exitCode).toBe(1);
    const { root, children } = treeOf(spans);
    const status = { code: SpanStatusCode.ERROR, message: 'MIGRATION_FAILED' };
    const failure = { 'error.type': 'MIGRATION_FAILED', 'db.response.status_code': '42P07' };
    expect(root).toMatchObject({ name: 'filestore run', status, attributes: failure });
    expect(children.slice(-2)).toMatchObject([
      { name: 'filestore migration', attributes: { 'filestore.migration': first } },
      {
        name: 'filestore migration',
        status,
        attributes: { 'filestore.migration': second, ...failure },
      },
    ]);
    const failed = children.filter((span) => span.status !== undefined);
    expect(failed).toEqual(children.slice(-1));
    expect(values.filter(({ attributes }) => attributes['error.type'] === 'MIGRATION_FAILED')).toHaveLength(
      2,
    );
  });

  test('keeps the password of the URL to itself', async () => {
    const { output, spans } = await runTraced(`postgres://app:${ENCODED_SECRET}@127.0.0.1:1/app`);
    expect(spans.map(({ status }) => status?.message)).toEqual(['CONNECTION_FAILED', 'CONNECTION_FAILED']);
    expect(leaksIn(output)).toEqual([]);
  });
});
