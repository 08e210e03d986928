import { expect } from 'vitest';

/** What every refusal says: a SQLSTATE of class FS, the path or id in its message, what to do in its hint. */
export function refusal(code: 'FS404' | 'FS409' | 'FS422', names: string | undefined): object {
  return {
    code,
    message: expect.stringContaining(names ?? 'no name to look for'),
    hint: expect.stringMatching(/\w{3}/),
  };
}
