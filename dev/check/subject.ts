import type pg from 'pg';
import type { Sources } from './sources.ts';

/** What the gates that need a server look at. */
export interface DatabaseSubject {
  readonly sources: Sources;
  /** To a database that a gate says what must be in, as a superuser. */
  readonly client: pg.Client;
}
