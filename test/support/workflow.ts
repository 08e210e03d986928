import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { expect, inject, vi } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import type { PackageCopy } from '../../harness/package-copy.ts';
import { type CliResult, collect, startCli } from './command-line.ts';
import { asAdmin } from './test-database.ts';

/** The three databases of a schema change, on the server of the run. */
export interface WorkflowEnv {
  readonly DATABASE_URL: string;
  readonly SHADOW_DATABASE_URL: string;
  readonly ROOT_DATABASE_URL: string;
}

/** What a person's editor does to a copy of the package. */
export interface Editor {
  /** Writes migrations/current.sql. */
  write(sql: string): void;
  read(): string;
  /** Replaces a text in a file below migrations/, and returns where that is; the text must be there. */
  replace(file: string, text: string, by: string): Place;
}

/** Where a text begins in a file. */
export interface Place {
  /** Counted from 1, as the column is. */
  readonly line: number;
  readonly column: number;
}

/** A command that runs until it is stopped, and what it has said so far. */
export interface RunningCommand {
  readonly child: ChildProcess;
  said(): string;
  /** Waits until it says something that it has not said when this was called the last time. */
  untilSays(text: string | RegExp): Promise<string>;
  /** Ctrl-C. */
  interrupt(): Promise<CliResult>;
}

const PATIENCE = { timeout: 50_000, interval: 20 };

/** Names for a main and a shadow database; the first is made, empty. */
export async function makeWorkflowDatabases(): Promise<WorkflowEnv> {
  const name = `${inject('template')}_work_${process.pid}_${Math.random().toString(36).slice(2, 8)}`;
  await asAdmin((admin) => admin.query(`create database ${name} encoding 'UTF8' template template0`));
  return workflowEnv(inject('adminUrl'), name);
}

/** The variables for databases of a server; `url` leads to the one to make others from. */
export function workflowEnv(url: string, name: string): WorkflowEnv {
  return {
    DATABASE_URL: databaseUrl(url, name),
    SHADOW_DATABASE_URL: databaseUrl(url, `${name}_shadow`),
    ROOT_DATABASE_URL: url,
  };
}

/** Runs a statement on a connection of its own, so that none is left when a database is to be dropped. */
export async function query<Row extends pg.QueryResultRow>(
  url: string,
  text: string,
): Promise<readonly Row[]> {
  const client = new pg.Client(url);
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<Row>(text)).rows;
  } finally {
    await client.end();
  }
}

export async function columnsOf(url: string, relation: string): Promise<readonly string[]> {
  const rows = await query<{ attname: string }>(
    url,
    `select attname from pg_attribute where attrelid = to_regclass('filestore.${relation}') and attnum > 0 and not attisdropped order by attnum`,
  );
  return rows.map(({ attname }) => attname);
}

/** Waits until a table or view has the column: that is when a person sees the change. */
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

/** @param interrupt What Ctrl-C is to it. */
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
    said: () => output,
    async untilSays(text) {
      const pattern = typeof text === 'string' ? new RegExp(literally(text)) : text;
      const match = await vi.waitFor(() => {
        const found = pattern.exec(output.slice(seen));
        if (found === null)
          throw new Error(`${pattern} was not said after:\n${output.slice(seen)}\nbut: ${output}`);
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
