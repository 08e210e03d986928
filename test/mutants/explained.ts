/**
 * Survivors that need no test, each by its id or, for a whole kind, by its name. "Equivalent": no statement can tell the
 * difference. "Performance only": plans and counted instructions catch it instead.
 */
export const EXPLAINED: Readonly<Record<string, string>> = {
  'planner setting left out': 'Performance only: it changes plans, which the bench counts instructions of.',
  'index dropped':
    'Performance only: it is not unique. test/schema/lookups.slow.test.ts looks for most of them in plans.',
  // filestore.journal_entries_idempotency_key … where idempotency_key is not null → true
  'journal_entries/unique-index-widened/631542':
    'Performance only: nulls differ from each other in a unique index, so more rows are only more entries.',
  // functions/prepare_node_insert.sql: new.updated_at > statement_timestamp() → >=
  'prepare_node_insert/comparison-shifted/aaecae':
    'Equivalent: the condition only decides whether refuse_created_node, which tests again, is called.',
  // functions/record_sightings.sql: if (least(seen_at, …
  'record_sightings/branch-always-taken/629280':
    'Performance only: one test of both moments saves two calls that test each.',
  // functions/remove_node_records.sql: for update → for share
  'remove_node_records/lock-weakened/b625ec':
    'Equivalent: a sighting waits for either lock, and only one session can remove a node.',
  // functions/plan_files.sql: left join … on h.scan_id = scan.id → on true
  'plan_files/condition-left-out/ca864c':
    'Equivalent: scan_directories has rows only inside the transaction that plans a scan.',
};
