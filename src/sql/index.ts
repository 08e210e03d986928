export type { SqlClient, SqlStatement } from './call.ts';
export * from './calls.ts';
export { REFUSAL_REASONS, type RefusalReason } from './reasons.ts';
export { isRefusal, isUnavailable, type Refusal, type RefusalCode, refusalOf } from './refusal.ts';
