import { type Design, query } from '../design.ts';
import { parentStatements } from '../parent-column.ts';
import { commonStatements, createTables, loadNodes } from '../table-definitions.ts';

const SCHEMA = 'parent_pointers';
const statements = parentStatements(SCHEMA);

export const design: Design = {
  key: 'a',
  title: '(a) parent pointers',
  color: '#e69f00',
  schema: SCHEMA,
  specialities: ['move'],
  description: {
    is: 'Each row has `parent_id`. Paths and subtrees are recursive queries.',
    lacks:
      'A path is no column: no index finds it and no history keeps it. The path of a node last week is not known.',
  },
  setUp: (client) => createTables(client, { schema: SCHEMA }),
  load: (client) => loadNodes(client, SCHEMA),
  ...commonStatements(SCHEMA),
  ...statements,
  totals: statements.subtreeSum,
  // Nothing is derived from other rows.
  wrongRows: () => query('select 0 as wrong'),
};
