import { verifySchema } from '../db/migrations.ts';
import { describeConnection } from '../settings/database.ts';
import { capitalized, count, paragraph } from '../text.ts';
import { defineCommand, JSON_OPTION } from './define-command.ts';
import type { VerifyDocument } from './documents.ts';
import { exitCodeOfCheck } from './exit-codes.ts';

export const verify = defineCommand({
  name: 'verify',
  summary: 'compare the schema with its model; changes nothing',
  options: { json: JSON_OPTION },
  run(output, _flags, withDatabase) {
    return withDatabase(output, async (connection) => {
      const check = await verifySchema({ connection });
      const where = capitalized(describeConnection(connection));
      if (check.state === 'same') {
        output.say(`${where}: the schema matches its migrations, and each role has the rights of its level.`);
      }
      if (check.state === 'unchecked') output.warn(`${where}: could not check. ${check.reason}`);
      if (check.state === 'drifted') {
        output.say(
          paragraph(
            `${where}: ${count(check.differences.length, 'difference')} from its migrations and the`,
            'levels of roles:',
          ),
        );
        for (const difference of check.differences) output.say(`DRIFT  ${difference}`);
      }
      if (check.state !== 'unchecked') for (const note of check.notes) output.warn(`Note: ${note}`);
      const { database } = connection;
      output.document({
        ok: check.state === 'same',
        command: 'verify',
        database,
        ...check,
      } satisfies VerifyDocument);
      return exitCodeOfCheck(check.state);
    });
  },
});
