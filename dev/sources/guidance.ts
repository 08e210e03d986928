import { adviceFor } from '../../src/migrate/migration-failure.ts';

/** The advice for the author of failed SQL: the server's hint and this package's advice, each null if there is none. */
export interface Guidance {
  readonly hint: string | null;
  readonly advice: string | null;
}

export function guidanceOf(error: Failure): Guidance {
  const code = error.code ?? '';
  return {
    // The server recommends cascade.
    hint: code === '2BP01' ? null : (error.hint ?? null),
    advice: adviceFor('author', code) ?? null,
  };
}

interface Failure {
  readonly code?: string | null | undefined;
  readonly hint?: string | null | undefined;
}
