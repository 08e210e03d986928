import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { packageFolder, startOf } from '../harness/compiled.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { databaseForFile, type TestDatabase } from './support/databases/test-database.ts';
import { readDockerfile } from './support/packages/dockerfile.ts';

const drifted = databaseForFile();
const clean = databaseForFile();
const empty = databaseForFile('empty');

const runbook = readFileSync(join(PACKAGE_ROOT, 'docs', 'operations.md'), 'utf8');
const [section = ''] = /^## Drift on a schedule\n[\s\S]*?(?=^## )/m.exec(runbook) ?? [];
const yamlOf = (text: string) =>
  [...text.matchAll(/^```yaml\n([\s\S]*?)^```$/gm)].map(([, yaml = '']) => yaml);
const [cronJob, workflow] = yamlOf(section).map((yaml) => parse(yaml));

/** The folder of a service whose node_modules/.bin has the packed command line. */
let service: string;
beforeAll(async () => {
  service = mkdtempSync(join(tmpdir(), 'filestore-schedule-'));
  const program = join(service, 'node_modules', '.bin', 'filestore-db');
  mkdirSync(join(service, 'node_modules', '.bin'), { recursive: true });
  const [module] = startOf(packageFolder(), 'src', 'cli');
  writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' '${module}' "$@"\n`);
  chmodSync(program, 0o755);
  writeFileSync(join(service, 'package.json'), '{}');
  await drifted().query('alter table filestore.nodes add column reviewed_by text');
  for (const database of [clean, drifted]) {
    const { role } = readerOf(database);
    await database().query(`create role ${role} login password '${role}'`);
    await database().query('select filestore.grant_access($1, $2)', [role, 'reader']);
  }
});
afterAll(async () => {
  rmSync(service, { recursive: true, force: true });
  for (const database of [clean, drifted]) {
    const { role } = readerOf(database);
    const superuser = await database().connectAsSuperuser();
    await superuser.query(`drop owned by ${role}; drop role ${role}`);
  }
});

/** The role with the level that the runbook asks for, and its URL. */
function readerOf(database: () => TestDatabase) {
  const role = `${database().name}_reader`;
  const url = new URL(database().url);
  [url.username, url.password] = [role, role];
  return { role, url: url.href };
}

interface Scheduled {
  readonly exitCode: number;
  readonly output: string;
}

/** Runs a command of a schedule as a shell line, with its secret set to this URL. */
function runScheduled(line: string, variables: readonly string[], url: string): Promise<Scheduled> {
  const path = `${join(service, 'node_modules', '.bin')}:${process.env.PATH}`;
  const env = { PATH: path, HOME: service, FILESTORE_MIGRATION_CONNECT_WAIT_MS: '0' };
  for (const variable of variables) Object.assign(env, { [variable]: url });
  return new Promise((resolve) => {
    execFile('bash', ['-e', '-c', line], { cwd: service, env }, (error, stdout, stderr) =>
      resolve({ exitCode: typeof error?.code === 'number' ? error.code : 0, output: stdout + stderr }),
    );
  });
}

const pod = cronJob.spec.jobTemplate.spec;
const [container] = pod.template.spec.containers;
const steps: readonly Readonly<Record<string, unknown>>[] = workflow.jobs.verify.steps;
const step = steps.at(-1) ?? {};

const [entrypoint] = readDockerfile().flatMap(({ name, words }) =>
  name === 'ENTRYPOINT' ? [JSON.parse(words).join(' ')] : [],
);

const SCHEDULES = [
  ['the CronJob', `${entrypoint} ${container.args.join(' ')}`, container.env.map(({ name = '' }) => name)],
  ['the workflow', String(step.run), Object.keys(Object(step.env))],
] as const;

/** What the table says of each state of a database. */
const STATES: readonly (readonly [name: string, url: () => string, exitCode: number])[] = [
  ['is as the migrations make it', () => readerOf(clean).url, 0],
  ['has a column more', () => readerOf(drifted).url, 4],
  ['lacks migrations', () => empty().url, 1],
  ['cannot be reached', () => 'postgres://app@127.0.0.1:1/app', 1],
  ['has no URL, since the secret is missing', () => '', 2],
];

describe.each(SCHEDULES)('%s of the runbook', (_, line, variables) => {
  test.each(STATES)('on a database that %s', async (_, url, exitCode) => {
    const { exitCode: ended, output } = await runScheduled(line, variables, url());
    expect(ended, output).toBe(exitCode);
    if (exitCode === 4) expect(output).toMatch(/^DRIFT .*reviewed_by/m);
    expect(section).toMatch(new RegExp(`^\\| ${exitCode} +\\| `, 'm'));
  });

  test('has its URL from the variable for migrations', () => {
    expect(variables).toEqual(['FILESTORE_MIGRATION_DATABASE_URL']);
  });
});

test('every YAML of the runbook can be read, and sets variables that the runbook lists', () => {
  const files = yamlOf(runbook);
  expect(files.length).toBeGreaterThan(2);
  for (const yaml of files) {
    expect(parse(yaml)).toEqual(expect.any(Object));
    const variables = yaml.match(/\bFILESTORE_\w+(?=:| *$)/gm) ?? [];
    expect(variables, yaml).not.toEqual([]);
    for (const variable of variables) expect(runbook).toMatch(new RegExp(`^\\| \`${variable}\` `, 'm'));
  }
});

test('the CronJob tries again what may pass, and nothing else', () => {
  const [rule] = pod.podFailurePolicy.rules;
  expect(rule).toEqual({
    action: 'FailJob',
    onExitCodes: { containerName: container.name, operator: 'In', values: [2, 4] },
  });
  expect(pod.template.spec.restartPolicy).toBe('Never');
});

test('the CronJob runs what the image starts, as a user who is not root', () => {
  expect(container).not.toHaveProperty('command');
  expect(container.env).toEqual([
    { name: expect.any(String), valueFrom: { secretKeyRef: { name: 'filestore-reader', key: 'url' } } },
  ]);
  expect(container.securityContext).toMatchObject({ runAsNonRoot: true, readOnlyRootFilesystem: true });
  // Kubernetes cannot tell from a name whether a user is root.
  expect(readDockerfile()).toContainEqual({ name: 'USER', words: expect.stringMatching(/^[1-9]\d*:/) });
});

test('the workflow installs what the lock file has, on a supported Node.js', () => {
  const manifest = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
  const [, oldest] = /^>=(\d+)/.exec(manifest.engines.node) ?? [];
  const node = steps.flatMap((one) => Object(one.with)['node-version'] ?? []);
  expect(node).toEqual([expect.any(Number)]);
  expect(Number(node[0])).toBeGreaterThanOrEqual(Number(oldest));
  expect(steps.map(({ run }) => run).filter((run) => run !== undefined)).toEqual(['npm ci', step.run]);
  expect(Object.keys(manifest.bin)).toContain('filestore-db');
});
