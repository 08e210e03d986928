import type pg from 'pg';
import type { Sources } from '../sources/sources.ts';

/** The input of the gates that need a server. */
export interface DatabaseSubject {
  readonly sources: Sources;
  /** Connection as a superuser. The gate says what the database must contain. */
  readonly client: pg.Client;
}
