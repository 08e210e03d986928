import { migrationStatus } from '../db/migrations.ts';
import type { Migrator } from '../migrate/survey.ts';
import { describeHolderAndSince } from '../session/lock-holder.ts';
import { describeConnection } from '../settings/database.ts';
import { capitalized, count } from '../text.ts';
import { ALLOW_AHEAD_OPTION, defineCommand, JSON_OPTION } from './define-command.ts';
import type { StatusDocument } from './documents.ts';
import { exitCodeOfState } from './exit-codes.ts';

export const status = defineCommand({
  name: 'status',
  summary: 'compare the history of the database with the migrations of this package; changes nothing',
  options: {
    json: JSON_OPTION,
    'allow-ahead': ALLOW_AHEAD_OPTION,
  },
  run(output, flags, withDatabase) {
    return withDatabase(output, async (connection) => {
      const found = await migrationStatus({ connection });
      const { state, applied, pending, problems, migrators } = found;
      output.say(
        `${capitalized(describeConnection(connection))}: ${state}${found.standby ? ' (hot standby)' : ''}`,
      );
      output.say(`${count(applied.length, 'migration')} applied, ${pending.length} pending`);
      for (const filename of pending) output.say(`PENDING  ${filename}`);
      for (const problem of problems) output.say(`PROBLEM  ${problem}`);
      for (const line of describeMigrators(migrators)) output.say(line);
      const { database } = connection;
      output.document({ ok: true, command: 'status', database, ...found } satisfies StatusDocument);
      return exitCodeOfState(state, flags['allow-ahead']);
    });
  },
});

/** Lines about the holders of the locks of migrations: one for a holder of both. */
export function describeMigrators(migrators: readonly Migrator[]): readonly string[] {
  return [...new Set(migrators.map(describeMigrator))];
}

function describeMigrator(migrator: Migrator): string {
  // A prepared transaction holds the lock, but does not work.
  const label = migrator.kind === 'prepared transaction' ? 'LOCKED BY' : 'AT WORK';
  return `${label}  ${describeHolderAndSince(migrator)}. ${migrator.remedy}`;
}
