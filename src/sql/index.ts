export type { SqlClient, SqlStatement } from './call.ts';
export * from './calls.ts';
export { REFUSAL_REASONS, type RefusalReason } from './reasons.ts';
export { isRefusal, type Refusal, type RefusalCode } from './refusal.ts';
