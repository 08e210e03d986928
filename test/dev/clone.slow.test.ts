import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Checkout, copyCheckout } from '../grown/checkout.ts';

let checkout: Checkout;
beforeEach(async () => {
  checkout = await copyCheckout(AbortSignal.timeout(120_000));
});
afterEach(() => checkout.remove());

test('a clone has the bytes that were committed, whatever line ends git is set to write', async () => {
  const clone = join(checkout.folder, 'clone');
  await checkout.run(['git', '-c', 'core.autocrlf=true', 'clone', '--quiet', '.', clone]);
  const files = await checkout.run(['git', '-C', clone, 'ls-files', '--eol']);
  expect(files).toContain('README.md');
  expect(files.split('\n').filter((file) => file.includes('w/crlf'))).toEqual([]);
});
