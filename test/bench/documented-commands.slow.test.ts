import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../../src/package-root.ts';

test('the program accepts every command of docs/performance.md', () => {
  const text = readFileSync(join(PACKAGE_ROOT, 'docs/performance.md'), 'utf8');
  const commands = [...text.matchAll(/npm run bench -- ([^`\n]+)/g)].map(([, args = '']) =>
    args.trim().split(' '),
  );
  expect(commands.length).toBeGreaterThan(2);
  for (const args of commands) {
    const { status, stderr } = spawnSync(
      process.execPath,
      ['--import', 'tsx', 'bench/main.ts', ...args, '--help'],
      { cwd: PACKAGE_ROOT, encoding: 'utf8' },
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  }
});
