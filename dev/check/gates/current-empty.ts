import { isEmpty, type Sources } from '../../sources/sources.ts';
import { type Gate, judge } from '../gate.ts';

export const currentEmpty: Gate<Sources> = {
  name: 'current',
  proves: 'no migration is left in current.sql',
  evaluate({ current }) {
    if (isEmpty(current)) return judge([]);
    const include = current.text.split('\n').findIndex((line) => line.startsWith('--!')) + 1;
    return judge([
      {
        file: current.file,
        line: current.statements[0]?.line ?? include,
        what: 'has a migration that is not committed',
        remedy:
          'Commit it: npm run db:commit -- -m "What it does". To check it before the commit: npm run db:check -- --current',
      },
    ]);
  },
};
