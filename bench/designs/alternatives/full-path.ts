import type { Design } from '../design.ts';
import { type PathColumn, pathStatements, pathTriggers } from '../path-column.ts';
import { commonStatements, createTables, loadNodes } from '../table-definitions.ts';

const SCHEMA = 'full_path';

// In a database with a linguistic collation, ranges of paths need the operators of text_pattern_ops: '/' and '0' are no
// neighbours there. The unique index has that class, so it serves equality and ranges.
const COLUMN: PathColumn = {
  schema: SCHEMA,
  child: (parentPath, name) => `case ${parentPath} when '' then '' else ${parentPath} || '/' end || ${name}`,
  ofText: (text) => text,
  given: '$2',
  isBelow: (path, top) => `${path} ~>=~ (${top} || '/') and ${path} ~<~ (${top} || '0')`,
  // One range, so that one scan of the index is enough.
  isIn: (path, top) =>
    `${path} ~>=~ ${top} and ${path} ~<~ (${top} || '0') and (${path} = ${top} or ${path} ~>=~ (${top} || '/'))`,
  carried: (newTop, path, oldTop) => `${newTop} || substr(${path}, length(${oldTop}) + 1)`,
};

// With the default of 100 buckets, an estimate of a small tree depends on the sample of the last analyze, and so does the
// plan of a copy.
const INDEXES = `
  alter table ${SCHEMA}.nodes alter column path set statistics 1000;
  create unique index on ${SCHEMA}.nodes (mount_id, path text_pattern_ops) where deleted_at is null;
  create index on ${SCHEMA}.nodes (mount_id, path text_pattern_ops, deleted_at) where deleted_at is not null;`;

export const design: Design = {
  key: 'b',
  title: '(b) full path',
  color: '#009e73',
  schema: SCHEMA,
  specialities: ['resolve'],
  description: {
    is: 'Each row has its `path`, under a unique index. Triggers on rows set it, and carry it below a directory that moves.',
    lacks: 'Nothing proves a path. A create beside a move can keep the old one.',
  },
  setUp: (client) =>
    createTables(client, {
      schema: SCHEMA,
      collation: '',
      columns: ['path text not null'],
      versioned: ['path'],
      children: 'parent_id',
      more: INDEXES + pathTriggers(COLUMN),
    }),
  load: (client) => loadNodes(client, SCHEMA, ', path'),
  ...commonStatements(SCHEMA),
  ...pathStatements(COLUMN),
};
