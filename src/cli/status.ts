import { describeHolderAndSince } from '../db/lock-holder.ts';
import { migrationStatus } from '../db/migrations.ts';
import { describeConnection } from '../settings/settings.ts';
import { capitalized, count } from '../text.ts';
import { defineCommand, JSON_OPTION } from './define-command.ts';
import type { StatusDocument } from './documents.ts';
import { DIVERGED, DONE, PENDING } from './exit-codes.ts';

export const status = defineCommand({
  name: 'status',
  summary: 'compare the history of the database with the migrations of this package; changes nothing',
  options: {
    json: JSON_OPTION,
    'allow-ahead': { type: 'boolean', help: 'as above' },
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
      for (const migrator of migrators) {
        // A prepared transaction holds the lock, but does not work.
        const label = migrator.kind === 'prepared transaction' ? 'LOCKED BY' : 'AT WORK';
        output.say(`${label}  ${describeHolderAndSince(migrator)}. ${migrator.remedy}`);
      }
      const { database } = connection;
      output.document({ ok: true, command: 'status', database, ...found } satisfies StatusDocument);
      if (state === 'current' || (state === 'ahead' && flags['allow-ahead'])) return DONE;
      return state === 'empty' || state === 'pending' ? PENDING : DIVERGED;
    });
  },
});
