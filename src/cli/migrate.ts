import { pendingMigrations, runMigrations } from '../db/migrations.ts';
import { DatabaseAheadError } from '../errors.ts';
import type { EvaluatedCheck, PendingMigration } from '../migrate/evaluate-data-checks.ts';
import { describeConnection } from '../settings/database.ts';
import type { ConnectionSettings } from '../settings/settings.ts';
import { capitalized, count, paragraph, seconds } from '../text.ts';
import { ALLOW_AHEAD_OPTION, defineCommand, JSON_OPTION } from './define-command.ts';
import type { AheadDocument, DryRunDocument, MigrateDocument } from './documents.ts';
import { DONE, exitCodeOf } from './exit-codes.ts';
import { errorDocument, type Output } from './output.ts';
import { withSignal } from './signals.ts';

export const migrate = defineCommand({
  name: 'migrate',
  summary: 'apply the committed migrations that the database does not have yet',
  options: {
    json: JSON_OPTION,
    events: {
      type: 'boolean',
      help: 'print each event as a line of JSON, and the document of --json as the last one',
      stdout: 'events',
      forFleets: true,
    },
    'dry-run': {
      type: 'boolean',
      help: 'print their SQL instead; changes nothing',
      stdout: 'text',
      forFleets: {
        refusal: paragraph(
          '--dry-run prints the SQL of one database.',
          'Use status --databases to see what is pending in many, or leave out --databases.',
        ),
      },
    },
    'allow-ahead': ALLOW_AHEAD_OPTION,
  },
  run(output, flags, withDatabase) {
    return withDatabase(output, async (connection) => {
      try {
        return await (flags['dry-run'] ? dryRun(output, connection) : applyPending(output, connection));
      } catch (error) {
        if (error instanceof DatabaseAheadError && flags['allow-ahead']) return reportAhead(output, error);
        throw error;
      }
    });
  },
});

async function applyPending(output: Output, connection: ConnectionSettings): Promise<number> {
  const report = await withSignal((signal) => runMigrations({ connection, signal, onEvent: output.render }));
  const { count: timeouts, totalMs, longestMs } = report.lockTimeouts;
  if (timeouts > 0) {
    output.say(
      paragraph(
        `Gave up ${count(timeouts, 'wait')} for a table's lock:`,
        `other sessions may have waited ${seconds(totalMs)} behind them in all,`,
        `${seconds(longestMs)} behind the longest`,
      ),
    );
  }
  const took = `(${Math.round(report.durationMs)} ms)`;
  output.say(
    report.applied.length === 0
      ? `Up to date: ${count(report.alreadyApplied, 'migration')} applied earlier ${took}`
      : paragraph(
          `Done: applied ${count(report.applied.length, 'migration')}, ${report.alreadyApplied}`,
          `applied earlier ${took}`,
        ),
  );
  output.document({ ok: true, command: 'migrate', report } satisfies MigrateDocument);
  return DONE;
}

async function dryRun(output: Output, connection: ConnectionSettings): Promise<number> {
  const pending = await pendingMigrations({ connection });
  const where = describeConnection(connection);
  output.say(`${capitalized(where)}: ${count(pending.length, 'migration')} to apply. Nothing was changed.`);
  for (const line of describeChecks(pending)) output.say(line);
  output.print(pending.map(renderPending).join('\n'));
  const document = { command: 'migrate', dryRun: true, pending } as const;
  const { failureOfChecks } = await import('../migrate/evaluate-data-checks.ts');
  const failure = failureOfChecks(where, pending, []);
  if (failure === undefined) {
    output.document({ ok: true, ...document } satisfies DryRunDocument);
    return DONE;
  }
  output.warn(`${output.paint.bad(failure.code)}: ${failure.message}`);
  output.document({ ok: false, ...document, error: errorDocument(failure) } satisfies DryRunDocument);
  return exitCodeOf(failure.code);
}

function describeChecks(pending: readonly PendingMigration[]): readonly string[] {
  const all = pending.flatMap(({ filename, checks }) => checks.map((check) => ({ filename, ...check })));
  if (all.length === 0) return [];
  const numberOf = (state: EvaluatedCheck['state']) => all.filter((check) => check.state === state).length;
  return [
    paragraph(
      `${count(all.length, 'check')}: ${numberOf('passed')} passed, ${numberOf('failed')} failed,`,
      `${numberOf('later')} to be evaluated later`,
    ),
    ...all.flatMap(({ state, filename, line, reason }) =>
      state === 'later' ? [`LATER  ${filename}, line ${line}: the check ${reason}`] : [],
    ),
  ];
}

function renderPending({ filename, sql, transaction }: PendingMigration): string {
  const how = transaction ? 'in a transaction' : 'without a transaction';
  return `-- ${filename} (${how})\n${sql}`;
}

/** An old version sees a newer database during a rolling deploy. */
function reportAhead(output: Output, error: DatabaseAheadError): number {
  output.say(
    `A later version has migrated this database (${error.unknown.join(', ')}): nothing to do for this one.`,
  );
  output.document({ ok: true, command: 'migrate', ahead: error.unknown } satisfies AheadDocument);
  return DONE;
}
