import pg from 'pg';
import { databaseUrl } from '../../harness/connection.ts';
import type { MigrationReport } from '../../src/index.ts';
import { type CliResult, runCli } from '../support/command-line/command-line.ts';
import { committedMigrations, migrationNumber } from '../support/packages/committed-files.ts';

export interface RoundOptions {
  /** URL of a database of a role that may create databases. */
  readonly adminUrl: string;
  /** Name of the database that is created for the round, and dropped after it. */
  readonly database: string;
  /** How many processes migrate at once. */
  readonly processes: number;
}

export interface RoundResult {
  /** Problems, one line each. */
  readonly faults: readonly string[];
  /** How often a migration was applied, summed over the processes. */
  readonly applied: number;
  /** How many of the processes applied a migration. */
  readonly workers: number;
  readonly durationMs: number;
}

/** Runs many processes that migrate one empty database at once, and checks each result. */
export async function runRound({ adminUrl, database, processes }: RoundOptions): Promise<RoundResult> {
  await query(adminUrl, `create database ${database} encoding 'UTF8' template template0`);
  try {
    const env = { DATABASE_URL: databaseUrl(adminUrl, database) };
    const startedAt = performance.now();
    const results = await Promise.all(
      Array.from({ length: processes }, () => runCli(['migrate', '--json'], { env })),
    );
    const durationMs = performance.now() - startedAt;
    const reports = results.flatMap((result) => reportOf(result) ?? []);
    return {
      faults: [
        ...results.flatMap(faultOf),
        ...faultsOfReports(reports),
        ...(await faultsOfDatabase(env.DATABASE_URL)),
      ],
      applied: reports.reduce((sum, { applied }) => sum + applied.length, 0),
      workers: reports.filter(({ applied }) => applied.length > 0).length,
      durationMs,
    };
  } finally {
    await query(adminUrl, `drop database ${database} with (force)`);
  }
}

function reportOf({ exitCode, stdout }: CliResult): MigrationReport | undefined {
  return exitCode === 0 ? JSON.parse(stdout).report : undefined;
}

function faultOf({ exitCode, output }: CliResult): readonly string[] {
  return exitCode === 0 ? [] : [`exit code ${exitCode}: ${output.trim()}`];
}

function faultsOfReports(reports: readonly MigrationReport[]): readonly string[] {
  const all = committedMigrations();
  const applied = reports.flatMap((report) => report.applied.map(({ filename }) => filename));
  return [
    ...all.flatMap((filename) => {
      const times = applied.filter((one) => one === filename).length;
      return times === 1 ? [] : [`${filename} was applied ${times} times`];
    }),
    ...reports.flatMap((report) =>
      report.applied.length + report.alreadyApplied === all.length
        ? []
        : [`a report counts ${report.applied.length} and ${report.alreadyApplied} migrations`],
    ),
  ];
}

async function faultsOfDatabase(url: string): Promise<readonly string[]> {
  const rows = await query(url, 'select filename from graphile_migrate.migrations order by filename');
  const recorded = rows.map(({ filename }) => filename).join(', ');
  const expected = committedMigrations()
    .map((filename) => `${migrationNumber(filename)}.sql`)
    .join(', ');
  const left = await query(
    url,
    `select application_name from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'`,
  );
  return [
    ...(recorded === expected ? [] : [`the database records ${recorded}`]),
    ...left.map(({ application_name }) => `a session was left: ${application_name}`),
  ];
}

async function query(url: string, sql: string): Promise<readonly Readonly<Record<string, string>>[]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}
