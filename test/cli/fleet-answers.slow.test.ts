import { describe, expect, test } from 'vitest';
import { startProxy } from '../../harness/proxy.ts';
import { worstOf } from '../../src/cli/exit-codes.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { documentOn, fleetForFile, listOf, runOn } from '../support/command-line/fleet-commands.ts';
import { ENCODED_SECRET, leaksIn } from '../support/command-line/secret.ts';
import { lockOut } from '../support/databases/fleet-databases.ts';

const { current, databaseIn, urlOf } = fleetForFile();

/** A URL with a secret password that the server refuses or does not ask for. */
function secretUrl(url: string): string {
  const other = new URL(url);
  other.password = ENCODED_SECRET;
  return other.href;
}

describe('the exit code is the worst one of', () => {
  test.each<[command: string, names: readonly string[], exitCode: number]>([
    ['status', ['current'], 0],
    ['status', ['current', 'pending'], 3],
    ['status', ['pending', 'unreachable'], 1],
    ['status', ['unreachable', 'diverged', 'pending'], 4],
    ['status --allow-ahead', ['ahead', 'current'], 0],
    ['migrate', ['unreachable', 'ahead'], 4],
    ['migrate --allow-ahead', ['ahead'], 0],
    ['verify', ['current', 'pending'], 1],
  ])('%s of %j', async (command, names, exitCode) => {
    const [name = '', ...args] = command.split(' ');
    const urls = Object.fromEntries(names.map((one) => [one, urlOf(one)]));
    expect(await runOn(name, urls, { args })).toMatchObject({ exitCode });
  });

  test('those that were started: a lock that stopped the others is still a lock', async () => {
    const { release } = await lockOut(databaseIn('pending'));
    try {
      const urls = { locked: urlOf('pending'), next: current().url };
      expect(await runOn('migrate', urls, { args: ['--first', '1'] })).toMatchObject({ exitCode: 5 });
    } finally {
      await release();
    }
  });

  test('several: first what a later run cannot fix, last a pending migration', () => {
    const order = [4, 2, 1, 5, 3, 0];
    for (const [index, worst] of order.entries()) expect(worstOf(order.slice(index).reverse())).toBe(worst);
  });

  test('migrate: a pooler, which is wrong settings, is worse than a lock', async () => {
    const cable = await startProxy(current().url, { rewriteProcessId: true });
    const { release } = await lockOut(databaseIn('pending'));
    try {
      const urls = { pooled: cable.url, locked: urlOf('pending') };
      const { exitCode, document } = await documentOn('migrate', urls);
      expect(exitCode).toBe(2);
      expect(document.databases).toMatchObject([
        { name: 'pooled', error: { code: 'POOLER_IN_BETWEEN' } },
        { name: 'locked', error: { code: 'LOCK_NOT_ACQUIRED' } },
      ]);
      expect(await runOn('migrate', { locked: urls.locked })).toMatchObject({ exitCode: 5 });
    } finally {
      await release();
      await cable.stop();
    }
  });
});

describe('no output has a URL or a password', () => {
  test('of databases that work, fail or cannot be reached', async () => {
    const { password } = new URL(current().url);
    const urls = {
      works: current().url,
      refused: secretUrl(current().url),
      other: urlOf('diverged'),
      nowhere: secretUrl(urlOf('unreachable')),
      unknown: secretUrl(urlOf('unreachable')).replace('127.0.0.1:1', 'db.invalid'),
    };
    for (const command of ['migrate', 'status', 'verify']) {
      for (const args of [[], ['--json']]) {
        const { output } = await runOn(command, urls, { args });
        expect(output).toContain('nowhere');
        expect(leaksIn(output)).toEqual([]);
        expect(output).not.toContain('postgres:');
        if (password !== '') expect(output).not.toContain(password);
      }
    }
  });

  test.each([
    ['a URL that cannot be read', { bad: `postgres://app:${ENCODED_SECRET}#@host/app` }],
    [
      'a URL in the place of the name',
      { [`postgres://app:${ENCODED_SECRET}@host/app`]: urlOf('unreachable') },
    ],
    ['no scheme', { bad: `app:${ENCODED_SECRET}@host/app` }],
  ])('of a list with %s', async (_, urls) => {
    const { exitCode, output } = await runOn('migrate', urls, { args: ['--json'] });
    expect(exitCode).toBe(2);
    expect(output).toMatch(/[Ll]ine 1 of LIST/);
    expect(leaksIn(output)).toEqual([]);
  });
});

describe('wrong usage is refused, and says what to do:', () => {
  const LIST = { rome: 'postgres://app@127.0.0.1:1/app' };
  test.each<[args: readonly string[], message: RegExp]>([
    [
      ['migrate', '--databases', 'env:LIST', '--dry-run'],
      /--dry-run prints the SQL of one database\. Use status/,
    ],
    [
      ['migrate', '--concurrency', '2'],
      /--concurrency is for many databases\. Give their list with --databases/,
    ],
    [['status', '--databases', 'env:LIST', '--concurrency', 'all'], /--concurrency is "all".*from 1 to 1000/],
    [['status', '--databases', 'env:LIST', '--concurrency', ''], /The value of --concurrency is empty/],
    [['migrate', '--first', '1'], /--first is for many databases\. Give their list with --databases/],
    [['migrate', '--stop-on-failure'], /--stop-on-failure is for many databases/],
    [['migrate', '--databases', 'env:LIST', '--first', '0'], /--first is "0".*from 1 to 1\b/],
    [['migrate', '--databases', 'env:LIST', '--first', '2'], /--first is "2".*from 1 to 1\b/],
    [['migrate', '--databases', 'env:LIST', '--first=-1'], /--first is "-1".*from 1 to 1\b/],
    [['migrate', '--databases', 'env:LIST', '--first', ''], /The value of --first is empty\. Give a number/],
    [['status', '--databases', 'env:LIST', '--first', '1'], /status has no option --first\./],
    [['verify', '--databases', 'env:LIST', '--stop-on-failure'], /verify has no option --stop-on-failure\./],
    [['verify', '--databases', ''], /the value is empty\. Give the path of a file/],
    [['verify', '--databases'], /--databases/],
  ])('%j', async (args, message) => {
    const { exitCode, stderr } = await runCli(args, { env: { LIST: listOf(LIST) } });
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(message);
  });
});
