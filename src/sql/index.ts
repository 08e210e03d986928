export type { SqlClient } from './call.ts';
export * from './calls.ts';
