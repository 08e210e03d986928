import { expect } from 'vitest';

/** Every refusal has a SQLSTATE of class FS, a path or id in its message, and a remedy in its hint. */
export function refusal(code: 'FS404' | 'FS409' | 'FS422', names: string | undefined): object {
  return {
    code,
    message: expect.stringContaining(names ?? 'no name to look for'),
    hint: expect.stringMatching(/\w{3}/),
  };
}
