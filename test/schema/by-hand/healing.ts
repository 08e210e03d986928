import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { PACKAGE_ROOT } from '../../../src/package-root.ts';
import { withClient } from '../../../src/testing/with-client.ts';
import { type TestDatabase, withoutTriggers } from '../../support/databases/test-database.ts';
import { examplesOf } from '../../support/packages/examples.ts';

/** A row of `check_integrity()`. */
export interface Problem {
  readonly problem: string;
  readonly backend_mount_id: string | null;
  readonly node_id: string | null;
  readonly detail: string;
}

/** What docs/upkeep.md says to do about a problem. */
interface Remedy {
  readonly problems: readonly string[];
  /** Words of the detail, where problems of one name have several remedies. */
  readonly words: readonly string[];
  readonly isWithoutGuards: boolean;
  readonly statements: readonly string[];
}

const codesIn = (cell: string): readonly string[] =>
  [...cell.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code);

/** The table of docs/upkeep.md. A remedy without a statement has those of the section that it links. */
export function readRemedies(): readonly Remedy[] {
  const text = readFileSync(join(PACKAGE_ROOT, 'docs/upkeep.md'), 'utf8');
  const examples = examplesOf('docs/upkeep.md');
  const rows = [...text.matchAll(/^\| (`.+?) \| (on|off) \| (.+) \|$/gm)];
  return rows.map(([, first = '', guards = '', remedy = '']) => {
    const [names = '', word = ''] = first.split(' with ');
    const written = codesIn(remedy).filter((code) =>
      /^(select|insert|update|delete|alter|call|with) /.test(code),
    );
    const anchor = /\(#([\w-]+)\)/.exec(remedy)?.[1];
    const linked = examples.filter(({ section }) => section.toLowerCase().replaceAll(' ', '-') === anchor);
    return {
      problems: codesIn(names),
      words: codesIn(word),
      isWithoutGuards: guards === 'off',
      statements: written.length > 0 ? written : linked.map(({ statement }) => statement),
    };
  });
}

/** Replaces `:name` by its value, also in values. */
export function fill(text: string, values: Readonly<Record<string, string | null>>): string {
  return text.replaceAll(/(?<![:\w]):([a-z_]+)\b/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`:${name} has no value in ${text}`);
    return value === null ? 'null' : fill(value, values);
  });
}

const PARTS: readonly RegExp[] = [
  /version (?<version>\d+)$/,
  /^scan (?<scan>\d+) of/,
  /^delta (?<delta>\d+)$/,
  /^filestore\.\w+: (?<id>-?\d+)$/,
  /^(?:trigger|constraint) (?<guard>\S+) on (?:domain )?(?<table>\S+)$/,
];

/** What the reader of a problem knows. */
const valuesOf = ({ backend_mount_id, node_id, detail }: Problem): Record<string, string | null> => ({
  backend_mount_id,
  node_id,
  ...Object.assign({}, ...PARTS.map((part) => part.exec(detail)?.groups)),
});

export async function readProblems(database: TestDatabase): Promise<readonly Problem[]> {
  return database.query<Problem & Record<string, unknown>>('select * from filestore.check_integrity()');
}

/** The problem that comes first in the table, with its remedy. */
function chooseFirst(problems: readonly Problem[], remedies: readonly Remedy[]) {
  const found = problems.map((problem) => {
    const place = remedies.findLastIndex(
      (each) =>
        each.problems.includes(problem.problem) &&
        (each.words.length === 0 || each.words.some((word) => problem.detail.includes(word))),
    );
    return { problem, place, remedy: remedies[place] };
  });
  return found.sort((a, b) => a.place - b.place)[0];
}

let remedies: readonly Remedy[] | undefined;

/** Carries out the documented remedy of one problem, again and again until there is none, and returns what was healed. */
export async function heal(
  database: TestDatabase,
  chosen: Readonly<Record<string, string>>,
): Promise<readonly string[]> {
  remedies ??= readRemedies();
  const healed: string[] = [];
  while (healed.length < 40) {
    const first = chooseFirst(await readProblems(database), remedies);
    if (first === undefined) return healed;
    const { problem, remedy } = first;
    if (remedy === undefined || remedy.statements.length === 0)
      throw new Error(`no remedy for ${problem.problem}`);
    const values = { ...valuesOf(problem), ...chosen };
    const run = async (client: Client) => {
      for (const statement of remedy.statements) await client.query(fill(statement, values));
    };
    if (remedy.isWithoutGuards) await withoutTriggers(database, run);
    else await withClient(database.superuserUrl, run);
    healed.push(problem.problem);
  }
  throw new Error(`not healed: ${healed.join(', ')}`);
}
