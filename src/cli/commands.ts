import { describeHolderAndSince } from '../db/lock-holder.ts';
import type { PendingMigration } from '../db/migrations.ts';
import { migrationStatus, pendingMigrations, runMigrations, verifySchema } from '../db/migrations.ts';
import { DatabaseAheadError } from '../errors.ts';
import { describeConnection } from '../settings.ts';
import { capitalized, count } from '../text.ts';
import type { Flags } from './arguments.ts';
import type {
  AheadDocument,
  DryRunDocument,
  MigrateDocument,
  StatusDocument,
  VerifyDocument,
} from './documents.ts';
import { DIVERGED, DONE, FAILED, PENDING } from './exit-codes.ts';
import type { Output } from './output.ts';
import { signalsAsAbort } from './signals.ts';
import { withDatabase } from './with-database.ts';

export async function migrate(output: Output, flags: Flags): Promise<number> {
  if (flags.dryRun) return dryRun(output, flags);
  return withDatabase(output, async (connection) => {
    const { signal, release } = signalsAsAbort();
    try {
      const report = await runMigrations({ connection, signal, onEvent: output.render });
      const took = `(${Math.round(report.durationMs)} ms)`;
      output.say(
        report.applied.length === 0
          ? `Up to date: ${count(report.alreadyApplied, 'migration')} applied earlier ${took}`
          : `Done: applied ${count(report.applied.length, 'migration')}, ${report.alreadyApplied} applied earlier ${took}`,
      );
      output.document({ ok: true, command: 'migrate', report } satisfies MigrateDocument);
      return DONE;
    } catch (error) {
      return passAhead(output, flags, error);
    } finally {
      release();
    }
  });
}

async function dryRun(output: Output, flags: Flags): Promise<number> {
  return withDatabase(output, async (connection) => {
    try {
      const pending = await pendingMigrations({ connection });
      output.say(
        `${capitalized(describeConnection(connection))}: ${count(pending.length, 'migration')} to apply. Nothing was changed.`,
      );
      output.print(pending.map(renderPending).join('\n'));
      output.document({ ok: true, command: 'migrate', dryRun: true, pending } satisfies DryRunDocument);
      return DONE;
    } catch (error) {
      return passAhead(output, flags, error);
    }
  });
}

function renderPending({ filename, sql, transaction }: PendingMigration): string {
  const how = transaction ? 'in a transaction' : 'without a transaction';
  return `-- ${filename} (${how})\n${sql}`;
}

/** A database that is ahead is what an old version sees in a rolling deploy. */
function passAhead(output: Output, flags: Flags, error: unknown): number {
  if (!(error instanceof DatabaseAheadError) || !flags.allowAhead) throw error;
  output.say(
    `A later version has migrated this database (${error.unknown.join(', ')}): nothing to do for this one.`,
  );
  output.document({ ok: true, command: 'migrate', ahead: error.unknown } satisfies AheadDocument);
  return DONE;
}

export async function status(output: Output, flags: Flags): Promise<number> {
  return withDatabase(output, async (connection) => {
    const found = await migrationStatus({ connection });
    const { state, applied, pending, problems, migrators } = found;
    output.say(
      `${capitalized(describeConnection(connection))}: ${state}${found.standby ? ' (hot standby)' : ''}`,
    );
    output.say(`${count(applied.length, 'migration')} applied, ${pending.length} pending`);
    for (const filename of pending) output.say(`PENDING  ${filename}`);
    for (const problem of problems) output.say(`PROBLEM  ${problem}`);
    for (const migrator of migrators) {
      // No one is at work in a prepared transaction.
      const label = migrator.kind === 'prepared transaction' ? 'LOCKED BY' : 'AT WORK';
      output.say(`${label}  ${describeHolderAndSince(migrator)}. ${migrator.remedy}`);
    }
    const { database } = connection;
    output.document({ ok: true, command: 'status', database, ...found } satisfies StatusDocument);
    if (state === 'current' || (state === 'ahead' && flags.allowAhead)) return DONE;
    return state === 'empty' || state === 'pending' ? PENDING : DIVERGED;
  });
}

export async function verify(output: Output): Promise<number> {
  return withDatabase(output, async (connection) => {
    const check = await verifySchema({ connection });
    const where = capitalized(describeConnection(connection));
    if (check.state === 'same') {
      output.say(
        `${where}: the schema is the one that its migrations make, and each role has the rights of its level.`,
      );
    }
    if (check.state === 'unchecked') output.warn(`${where}: could not check. ${check.reason}`);
    if (check.state === 'drifted') {
      output.say(
        `${where}: ${count(check.differences.length, 'difference')} to what its migrations make and grant_access granted:`,
      );
      for (const difference of check.differences) output.say(`DRIFT  ${difference}`);
    }
    if (check.state !== 'unchecked') for (const note of check.notes) output.warn(`Note: ${note}`);
    output.document({ ok: check.state === 'same', command: 'verify', ...check } satisfies VerifyDocument);
    return { same: DONE, drifted: DIVERGED, unchecked: FAILED }[check.state];
  });
}
