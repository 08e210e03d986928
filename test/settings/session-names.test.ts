import { hostname } from 'node:os';
import { expect, test } from 'vitest';
import { nameSession } from '../../src/settings/settings.ts';

test('a session is named after its purpose, its beginning to the second, and its host', () => {
  expect(nameSession('filestore migrate', 'pod-1')).toMatch(/^filestore migrate \d{8}T\d{6}Z pod-1$/);
  expect(nameSession('filestore')).toContain(hostname().slice(-30));
});

test('of a name with more than 63 bytes, the beginning of the host is left out', () => {
  const name = nameSession('filestore', `${'a'.repeat(60)}-pod-1`);
  expect(name).toMatch(/^filestore \d{8}T\d{6}Z a+-pod-1$/);
  expect(name).toHaveLength(63);
});
