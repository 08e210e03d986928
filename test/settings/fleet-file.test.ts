import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readFleet, SettingsError } from '../../src/index.ts';
import { resolveFleet } from '../../src/settings/fleet-members.ts';

const SECRET = 'hunter2-sesame';
const URL = 'postgres://app@db.example/app';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'filestore-fleet-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Reads a list from a variable. */
const read = (list: string, env: Readonly<Record<string, string>> = {}) =>
  readFleet('env:LIST', { LIST: list, ...env });

/** The message with which a list is refused, as a run of the fleet refuses it. */
async function refusalOf(list: string, env: Readonly<Record<string, string>> = {}): Promise<string> {
  const error: unknown = await read(list, env)
    .then((databases) => resolveFleet(databases, env))
    .then(
      () => expect.fail('the list was accepted'),
      (cause: unknown) => cause,
    );
  expect(error).toBeInstanceOf(SettingsError);
  expect(JSON.stringify([error, String(error)])).not.toContain(SECRET);
  return (error as SettingsError).message;
}

describe('a list', () => {
  test('has a name and a URL, or a name and the variable of the URL, on each line', async () => {
    expect(await read(`paris ${URL}\nrome ROME_URL`, { ROME_URL: URL })).toMatchObject([
      { name: 'paris', connectionString: URL },
      { name: 'rome', connectionString: URL },
    ]);
  });

  test('may have blank lines, comments, indentation, other line ends and a byte order mark', async () => {
    const list = `\uFEFF# all of them\r\n\r\n\tparis   ${URL}\t# the first\r\n  \r\n #rome ${URL}\r\n`;
    expect(await read(list)).toMatchObject([{ name: 'paris', connectionString: URL }]);
  });

  test('may be a file', async () => {
    const file = join(folder, 'databases.txt');
    writeFileSync(file, `paris ${URL}\n`);
    expect(await readFleet(file, {})).toMatchObject([{ name: 'paris', connectionString: URL }]);
  });
});

describe('a list is refused, with its line and what to do, and without its URLs:', () => {
  test.each([
    ['an empty one', '\n# nothing yet\n', /no database in LIST\. Write one on each line/],
    [
      'a name without a URL',
      `paris ${URL}\n\nrome`,
      /^Line 3 of LIST does not have two words\. Write a name/,
    ],
    ['a third word', `paris ${URL} ${SECRET}`, /^Line 1 of LIST does not have two words/],
    [
      'a variable that is not set',
      'paris PARIS_URL',
      /^Line 1 of LIST names the variable PARIS_URL, which is not set\. Set it/,
    ],
    [
      'a variable with the name of an inherited property',
      'paris constructor',
      /^Line 1 of LIST names the variable constructor, which is not set\. Set it/,
    ],
    ['a word that is neither', `paris ${SECRET}:x@host`, /^Line 1 of LIST has neither a URL nor a variable/],
    [
      'a URL in the place of the name',
      `postgres://app:${SECRET}@host/app ${URL}`,
      /^The name of line 1 of LIST has characters/,
    ],
    [
      'a name that is there twice',
      `paris ${URL}\nrome ${URL}2\nparis ${URL}3`,
      /^The name "paris" is there twice: line 1 of LIST, and line 3 of LIST\. Give/,
    ],
    [
      'a URL that cannot be read',
      `paris ${URL}\nrome postgres://app:${SECRET}#@host/app`,
      /^Database "rome" \(line 2 of LIST\): its URL is not a valid URL/,
    ],
    [
      'a URL of something else',
      `paris mysql://app:${SECRET}@host/app`,
      /^Database "paris" \(line 1 of LIST\): its URL does not begin with postgres:/,
    ],
    [
      'a certificate that cannot be read',
      `paris ${URL}?sslrootcert=/nowhere.pem`,
      /^Database "paris" \(line 1 of LIST\): .*sslrootcert.* \/nowhere\.pem/,
    ],
  ])('%s', async (_, list, message) => {
    expect(await refusalOf(list)).toMatch(message);
  });

  test('a URL in a variable that cannot be read', async () => {
    const message = await refusalOf('paris PARIS_URL', { PARIS_URL: `postgres://app:${SECRET}/@host` });
    expect(message).toMatch(/^Database "paris" \(line 1 of LIST \(PARIS_URL\)\): its URL /);
  });

  test('several problems at once', async () => {
    expect(await refusalOf(`paris\n${URL}\nrome ROME_URL`)).toMatch(
      /^The list of databases has 3 problems\. Nothing was run\.\n {2}Line 1 .*\n {2}Line 2 .*\n {2}Line 3 .*$/,
    );
  });
});

test('a variable that is empty is refused as one that is not set', async () => {
  const refusal = await refusalOf('paris PARIS_URL', { PARIS_URL: ' ' });
  expect(refusal).toMatch(/^Line 1 of LIST names the variable PARIS_URL, which is not set\. Set it/);
});

describe('what should name the list is refused:', () => {
  test.each([
    ['nothing', '', /is not named: the value is empty/],
    ['a URL', `postgres://app:${SECRET}@host/app`, /is given as a URL\. Write the URL into a file/],
    [
      'a variable that is not set',
      'env:NOT_SET',
      /variable NOT_SET.* is not set\. Set it, or correct its name/,
    ],
    ['a variable with the name of an inherited property', 'env:__proto__', /variable __proto__.* is not set/],
    ['no variable', `env:${SECRET}/`, /no name of a variable\. Write, for instance, env:DATABASES\./],
    [
      'a file that is not there',
      '/nowhere/databases.txt',
      /\/nowhere\/databases\.txt \(ENOENT\)\. Give the path/,
    ],
  ])('%s', async (_, source, message) => {
    const error = await readFleet(source, {}).catch((cause: unknown) => cause);
    expect(error).toMatchObject({ code: 'SETTINGS_INVALID', setting: 'databases' });
    expect(String(error)).toMatch(message);
    expect(String(error)).not.toContain(SECRET);
  });
});
