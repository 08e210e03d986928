import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { expect, inject, vi } from 'vitest';
import { databaseUrl } from '../../../harness/connection.ts';
import type { PackageCopy } from '../../../harness/package-copy.ts';
import { withClient } from '../../../src/testing/with-client.ts';
import { asAdmin } from '../databases/test-database.ts';
import { type CliResult, collect, startCli } from './command-line.ts';

/** The three databases for changing the schema, on the server of the run. */
export interface WorkflowEnv {
  readonly DATABASE_URL: string;
  readonly SHADOW_DATABASE_URL: string;
  readonly ROOT_DATABASE_URL: string;
}

/** Edits files in a copy of the package. */
export interface Editor {
  /** Writes migrations/current.sql. */
  write(sql: string): void;
  read(): string;
  /** Replaces a text in a file below migrations/, and returns its place. Throws if the text is missing. */
  replace(file: string, text: string, by: string): Place;
}

/** The place where a text begins in a file. */
export interface Place {
  /** From 1, like the column. */
  readonly line: number;
  readonly column: number;
}

/** A command that runs until it is stopped, and its output. */
export interface RunningCommand {
  readonly child: ChildProcess;
  said(): string;
  /** Waits until the output since the last call matches. */
  untilSays(text: string | RegExp): Promise<string>;
  /** Resolves when it has ended, also without a signal. */
  readonly ended: Promise<CliResult>;
  /** Sends Ctrl-C. */
  interrupt(): Promise<CliResult>;
}

const PATIENCE = { timeout: 50_000, interval: 20 };

/** Names for a main and a shadow database. The first is created, empty. */
export async function makeWorkflowDatabases(): Promise<WorkflowEnv> {
  const name = `${inject('template')}_work_${process.pid}_${Math.random().toString(36).slice(2, 8)}`;
  await asAdmin((admin) => admin.query(`create database ${name} encoding 'UTF8' template template0`));
  return workflowEnv(inject('adminUrl'), name);
}

/** The environment variables for the databases of a server. `url` is the database from which others are created. */
export function workflowEnv(url: string, name: string): WorkflowEnv {
  return {
    DATABASE_URL: databaseUrl(url, name),
    SHADOW_DATABASE_URL: databaseUrl(url, `${name}_shadow`),
    ROOT_DATABASE_URL: url,
  };
}

/** Runs a statement on a separate connection, so that no open one prevents a database from being dropped. */
export async function query<Row extends pg.QueryResultRow>(
  url: string,
  text: string,
): Promise<readonly Row[]> {
  return withClient(url, async (client) => (await client.query<Row>(text)).rows);
}

export async function columnsOf(url: string, relation: string): Promise<readonly string[]> {
  const rows = await query<{ attname: string }>(
    url,
    `select attname from pg_attribute where attrelid = to_regclass('filestore.${relation}') and attnum > 0 and not attisdropped order by attnum`,
  );
  return rows.map(({ attname }) => attname);
}

/** Waits until a table or view has the column. */
export async function untilColumn(url: string, relation: string, column: string): Promise<void> {
  await vi.waitFor(async () => expect(await columnsOf(url, relation)).toContain(column), PATIENCE);
}

export function editorOf(copy: PackageCopy): Editor {
  const current = join(copy.folder, 'migrations', 'current.sql');
  return {
    write: (sql) => writeFileSync(current, sql),
    read: () => readFileSync(current, 'utf8'),
    replace(file, text, by) {
      const path = join(copy.folder, 'migrations', file);
      const content = readFileSync(path, 'utf8');
      expect(content).toContain(text);
      writeFileSync(
        path,
        content.replace(text, () => by),
      );
      const before = content.slice(0, content.indexOf(text)).split('\n');
      return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
    },
  };
}

export function startWatch(copy: PackageCopy, env: Readonly<Record<string, string>> = {}): RunningCommand {
  return follow(startCli(['watch'], { folder: copy.folder, env }), (child) => child.kill('SIGINT'));
}

/** @param interrupt Sends Ctrl-C to it. */
export function follow(child: ChildProcess, interrupt: (child: ChildProcess) => void): RunningCommand {
  let output = '';
  let seen = 0;
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
    });
  }
  const ended = collect(child);
  return {
    child,
    ended,
    said: () => output,
    async untilSays(text) {
      const pattern = typeof text === 'string' ? new RegExp(literally(text)) : text;
      const match = await vi.waitFor(() => {
        const found = pattern.exec(output.slice(seen));
        if (found === null)
          throw new Error(`${pattern} was not printed after:\n${output.slice(seen)}\nin: ${output}`);
        return found;
      }, PATIENCE);
      const said = output.slice(seen, seen + match.index + match[0].length);
      seen += match.index + match[0].length;
      return said;
    },
    interrupt() {
      interrupt(child);
      return ended;
    },
  };
}

/** Waits until no server runs on the copy's data. */
export async function untilNoServer(copy: PackageCopy): Promise<void> {
  const pidFile = join(copy.folder, '.postgres', 'server', 'data', 'postmaster.pid');
  await vi.waitFor(() => expect(existsSync(pidFile)).toBe(false), PATIENCE);
}

function literally(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');
}
