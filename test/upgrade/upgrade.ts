import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { databaseUrl } from '../../harness/connection.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { installPackage, type PackedService } from '../support/packages/installed-package.ts';
import { createOwner, testRole } from '../support/roles/test-role.ts';
import { type FilledMount, fillMount } from '../support/rows/fill-mount.ts';
import { findLost } from '../support/rows/find-lost.ts';
import { foldAll } from '../support/rows/nodes.ts';
import { startOwnServer } from '../support/servers/own-server.ts';
import { type Change, type CommandResult, changesOf, runPacked } from './deploy.ts';
import { findChanged, findDiffering, findProblems, readDigests } from './row-checks.ts';
import { type Service, startService } from './service.ts';
import type { ServiceReport } from './service-messages.ts';
import type { NewVersion, Version } from './versions.ts';

export interface UpgradeOptions {
  readonly from: Version;
  readonly to: NewVersion;
  /** Nodes in the database before the upgrade. */
  readonly nodes: number;
  /** How often each worker runs its flows before the migrations, after them, and on the new version. */
  readonly turns: number;
  readonly signal: AbortSignal;
  onStep(line: string): void;
}

export interface UpgradeResult {
  readonly from: string;
  readonly to: string;
  /** Migrations that the upgrade applied. */
  readonly applied: readonly string[];
  readonly changes: readonly Change[];
  /** Of the old service, and of the new one. */
  readonly services: readonly ServiceReport[];
  /** Empty when nothing failed, and nothing was lost or changed. */
  readonly faults: readonly string[];
}

/** Upgrades a database from one version of the package to another, while services of both use it. */
export async function upgrade(options: UpgradeOptions): Promise<UpgradeResult> {
  const { from, to, signal, onStep } = options;
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'fs-upgrade-')));
  try {
    const install = async ({ name, folder: checkout }: Version, place: string) => {
      signal.throwIfAborted();
      onStep(`packs ${name}`);
      mkdirSync(join(folder, place));
      return installPackage(join(folder, place), checkout);
    };
    const installed = { old: await install(from, 'old'), next: await install(to, 'new') };
    const server = await startOwnServer();
    try {
      return await upgradeDatabase(options, installed, await createDatabase(server.url));
    } finally {
      await server.stop();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Installed {
  readonly old: PackedService;
  readonly next: PackedService;
}

interface Database {
  /** As the owner of the schema: an ordinary role with TEST_ROLE=owner. */
  readonly url: string;
  readonly serviceUrl: string;
  readonly operatorUrl: string;
}

async function createDatabase(serverUrl: string): Promise<Database> {
  const password = randomBytes(9).toString('hex');
  const ownerUrl =
    testRole() === 'superuser'
      ? serverUrl
      : await withClient(serverUrl, (client) => createOwner(client, serverUrl, 'upgrade_owner'));
  await withClient(ownerUrl, async (client) => {
    await client.query('create database upgrade');
    for (const level of ['service', 'operator']) {
      await client.query(`create role upgrade_${level} login password '${password}'`);
    }
  });
  const url = databaseUrl(ownerUrl, 'upgrade');
  const as = (level: string) => {
    const login = new URL(url);
    login.username = `upgrade_${level}`;
    login.password = password;
    return login.href;
  };
  return { url, serviceUrl: as('service'), operatorUrl: as('operator') };
}

const DIRECTORIES = 4;

async function upgradeDatabase(
  { from, to, nodes, turns, signal, onStep }: UpgradeOptions,
  { old, next }: Installed,
  { url, ...roles }: Database,
): Promise<UpgradeResult> {
  expectSuccess('migrate', await runPacked(old, ['migrate'], url, signal));
  onStep(`fills ${from.name} with ${nodes} nodes`);
  const mount = await withClient(url, (client) => fill(client, nodes));
  const digests = await withClient(url, (client) => readDigests(client, mount));
  const services: Service[] = [];
  const start = (number: number, { packageFolder: folder }: PackedService) => {
    const own = mount.directoryIds.slice(2 * (number - 1), 2 * number);
    const service = startService({ folder, number, mount: { ...mount, directoryIds: own }, ...roles });
    services.push(service);
    return service;
  };
  try {
    onStep('starts the old service');
    const before = start(1, old);
    await before.untilServed(turns, signal);
    onStep('migrates');
    const run = await runPacked(next, ['migrate', '--events'], url, signal);
    const migrated = changesOf(run.lines, next);
    const changes = [...migrated];
    for (const sql of to.afterwards) changes.push(await runAsOwner(url, sql));
    onStep('goes on with the old service');
    await before.untilServed(turns, signal);
    onStep('starts the new service, and ends the old one');
    const after = start(2, next);
    await after.untilServed(1, signal);
    const reports = [await before.stop()];
    await after.untilServed(turns, signal);
    reports.push(await after.stop());
    onStep('compares rows');
    const faults = [
      ...(run.exitCode === 0 ? [] : [`migrate: ${run.output.trimEnd().slice(-2000)}`]),
      ...reports.flatMap((report) => report.faults),
      ...(await withClient(url, async (client) => [
        ...(await findChanged(client, mount, digests)),
        ...(await findLost(
          client,
          reports.flatMap(({ writers }) => writers),
        )),
        ...(await findDiffering(
          client,
          reports.flatMap(({ served }) => served),
        )),
        ...(await findProblems(client, mount)),
      ])),
      ...failureOf('verify', await runPacked(next, ['verify'], url, signal)),
      ...failureOf(
        'status of the old version',
        await runPacked(old, ['status', '--allow-ahead'], url, signal),
      ),
    ];
    const applied = [...new Set(migrated.map(({ name }) => name))];
    return { from: from.name, to: to.name, applied, changes, services: reports, faults };
  } finally {
    await Promise.all(services.map((service) => service.kill()));
  }
}

/** Some values are for the backfill of an example. */
async function fill(client: pg.Client, nodes: number): Promise<FilledMount> {
  const mount = await fillMount(client, 'filled', nodes, DIRECTORIES);
  // As regular work has done in a catalogue of this size.
  await foldAll(client);
  await client.query(
    `update filestore.nodes set metadata = metadata || '{"media_type": "text/plain"}'
     where backend_mount_id = $1 and kind = 'file' and live and id % 10 = 0`,
    [mount.id],
  );
  for (const level of ['service', 'operator']) {
    await client.query('select filestore.grant_access($1, $2)', [`upgrade_${level}`, level]);
  }
  return mount;
}

async function runAsOwner(url: string, sql: string): Promise<Change> {
  const fromMs = Date.now();
  await withClient(url, (client) => client.query(sql));
  return { name: sql.trim(), fromMs, toMs: Date.now(), locks: false };
}

function expectSuccess(what: string, result: CommandResult): void {
  const [failure] = failureOf(what, result);
  if (failure !== undefined) throw new Error(failure);
}

function failureOf(what: string, { exitCode, output }: CommandResult): readonly string[] {
  return exitCode === 0 ? [] : [`${what} ended with exit code ${exitCode}: ${output.trimEnd()}`];
}
