import { readFile } from 'node:fs/promises';
import { codeOf } from '../cause-codes.ts';
import { SettingsError } from '../errors.ts';
import { paragraph } from '../text.ts';
import { type FleetDatabase, refuseProblems } from './fleet-members.ts';
import { type Environment, isSet, variableOf } from './settings.ts';

/** What a list looks like, for messages. */
const FORM = 'a name, and a URL or the name of the variable that holds it';
const VARIABLE_PREFIX = 'env:';
const GIVE_A_LIST = `Give the path of a file, or ${VARIABLE_PREFIX} and the name of a variable.`;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/;

/**
 * Reads a list of databases. Each line has a name, and a URL or the name of the variable that holds it.
 * Blank lines and what follows a `#` after a space are ignored.
 * @param source Path of a file, or `env:` and the name of the variable that holds the list.
 * @param env Default: `process.env`.
 * @example
 * const databases = await readFleet('databases.txt');
 * const { databases: results } = await migrateFleet({ databases });
 * @throws {SettingsError} that names every line at fault, and quotes no URL.
 */
export async function readFleet(
  source: string,
  env: Environment = process.env,
): Promise<readonly FleetDatabase[]> {
  const { label, text } = await readList(source, env);
  const databases: FleetDatabase[] = [];
  const problems: string[] = [];
  // An editor may put a byte order mark at the beginning.
  for (const [index, line] of text
    .replace(/^\uFEFF/, '')
    .split('\n')
    .entries()) {
    const words = line
      .replace(/(^|\s)#.*/, '')
      .split(/\s+/)
      .filter((word) => word !== '');
    if (words.length === 0) continue;
    const entry = readLine(words, `line ${index + 1} of ${label}`, env);
    if ('problem' in entry) problems.push(entry.problem);
    else databases.push(entry);
  }
  refuseProblems(problems);
  if (databases.length === 0) {
    refuseList(`There is no database in ${label}. Write one on each line: ${FORM}.`);
  }
  return databases;
}

function readLine(
  words: readonly string[],
  place: string,
  env: Environment,
): FleetDatabase | { readonly problem: string } {
  const [name = '', target = ''] = words;
  // Words are not quoted: where the order is wrong, each may be a URL.
  if (words.length !== 2) return { problem: `${place} does not have two words. Write ${FORM}.` };
  if (target.includes('://')) return { name, connectionString: target, origin: place };
  if (!VARIABLE.test(target)) {
    return { problem: `${place} has neither a URL nor a variable as its second word. Write ${FORM}.` };
  }
  const value = variableOf(env, target);
  if (value === undefined || !isSet(value)) {
    return {
      problem: paragraph(
        `${place} names the variable ${target}, which is not set.`,
        'Set it to the URL of the database, or correct its name.',
      ),
    };
  }
  return { name, connectionString: value, origin: `${place} (${target})` };
}

async function readList(source: string, env: Environment): Promise<{ label: string; text: string }> {
  if (source === '') {
    refuseList(`The list of databases is not named: the value is empty. ${GIVE_A_LIST}`);
  }
  if (source.includes('://')) {
    refuseList(
      'The list of databases is given as a URL.',
      'Write the URL into a file, after a name for the database, and give the path of the file.',
    );
  }
  if (source.startsWith(VARIABLE_PREFIX)) return readVariable(source.slice(VARIABLE_PREFIX.length), env);
  try {
    return { label: source, text: await readFile(source, 'utf8') };
  } catch (error) {
    // No cause, whose message has the path too. It may be a connection string.
    const path = /[=@]/.test(source) ? 'its path, which is not shown here' : source;
    refuseList(`The list of databases cannot be read: ${path} (${codeOf(error)}). ${GIVE_A_LIST}`);
  }
}

function readVariable(variable: string, env: Environment): { label: string; text: string } {
  if (!VARIABLE.test(variable)) {
    refuseList(
      `After ${VARIABLE_PREFIX} there is no name of a variable.`,
      `Write, for instance, ${VARIABLE_PREFIX}DATABASES.`,
    );
  }
  const text = variableOf(env, variable);
  if (text === undefined) {
    refuseList(
      `The variable ${variable}, which should hold the list of databases, is not set.`,
      'Set it, or correct its name.',
    );
  }
  return { label: variable, text };
}

function refuseList(...sentences: readonly string[]): never {
  throw new SettingsError('databases', paragraph(...sentences));
}
