import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { Problem } from '../../sources/problem.ts';
import { isSource, type Sources, type SqlSource } from '../../sources/sources.ts';
import { type Gate, judge } from '../gate.ts';

/** A problem in squawk's JSON. Lines count from 0. */
interface Complaint {
  readonly file: string;
  readonly line: number;
  readonly message: string;
  readonly help: string | null;
  readonly rule_name: string;
}

const REMEDY =
  'Change the migration. If the rule does not apply here, write "-- squawk-ignore RULE" and the reason above the statement.';

export const lint: Gate<Sources> = {
  name: 'lint',
  proves: 'squawk reports no problem, except for rules that .squawk.toml disables',
  async evaluate({ root, committed, pending }) {
    const manifest = createRequire(import.meta.url).resolve('squawk-cli/package.json');
    const squawk = join(dirname(manifest), 'js', 'bin', 'squawk');
    const runs = [
      // Without files, squawk would read stdin.
      ...(committed.length === 0 ? [] : [runSquawk(squawk, root, committed)]),
      ...(isSource(pending) ? [runSquawk(squawk, root, [pending], pending.text)] : []),
    ];
    return judge((await Promise.all(runs)).flat());
  },
};

/** @param input The text of the single source, if it differs from the file. */
async function runSquawk(
  squawk: string,
  root: string,
  sources: readonly SqlSource[],
  input?: string,
): Promise<readonly Problem[]> {
  const files = sources.map(({ file }) => file);
  const from = input === undefined ? files : ['--stdin-filepath', ...files];
  const running = promisify(execFile)(process.execPath, [squawk, '--reporter', 'json', ...from], {
    cwd: root,
    maxBuffer: 2 ** 28,
  });
  // A program that fails at its start does not read its input.
  running.child.stdin?.on('error', () => undefined);
  running.child.stdin?.end(input ?? '');
  // It ends with 1 if it has complaints, and with another code if it cannot read its settings.
  const { stdout, stderr } = await running.catch((error: { stdout: string; stderr: string }) => error);
  const complaints = parseComplaints(stdout);
  if (complaints === undefined || (stderr !== '' && complaints.length === 0)) {
    const what = `cannot be read by squawk: ${stderr.trim() || stdout.trim()}`;
    return [{ file: files[0] ?? '', line: null, what, remedy: 'Correct .squawk.toml or the SQL.' }];
  }
  return withoutConsequences(complaints).map(({ file, line, rule_name, message, help }) => {
    const source = sources.find((candidate) => file.endsWith(candidate.file)) ?? sources[0];
    return {
      ...(source?.placeOf(line + 1) ?? { file, line: line + 1 }),
      what: `${rule_name}: ${message}`,
      remedy:
        rule_name === 'syntax-error'
          ? 'Correct the statement.'
          : [help, REMEDY.replace('RULE', rule_name)].filter(Boolean).join(' '),
    };
  });
}

/** After a syntax error, squawk reports most of the following words, and what it took for statements. */
function withoutConsequences(complaints: readonly Complaint[]): readonly Complaint[] {
  const isSyntaxError = ({ rule_name }: Complaint) => rule_name === 'syntax-error';
  return complaints.filter((complaint) => {
    const first = complaints.find((other) => other.file === complaint.file && isSyntaxError(other));
    return first === undefined || first === complaint;
  });
}

function parseComplaints(json: string): readonly Complaint[] | undefined {
  try {
    return json.trim() === '' ? [] : JSON.parse(json);
  } catch {
    return undefined;
  }
}
