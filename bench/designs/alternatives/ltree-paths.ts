import type { Client } from 'pg';
import type { Design } from '../design.ts';
import { type PathColumn, pathStatements, pathTriggers } from '../path-column.ts';
import { commonStatements, createTables, loadNodes } from '../table-definitions.ts';

const SCHEMA = 'ltree_paths';

// A label holds letters, digits and underscores only, so names are encoded: the usual characters one by one, any other
// name as hexadecimal digits.
const FUNCTIONS = `
  create function ${SCHEMA}.label(name text) returns text
  language sql immutable parallel safe
  return case
    when name ~ '^[A-Za-z0-9_.-]+$' then replace(replace(replace(name, '_', '_5f'), '-', '_2d'), '.', '_2e')
    else '__' || encode(convert_to(name, 'UTF8'), 'hex')
  end;

  create function ${SCHEMA}.encoded(path text) returns ltree
  language sql immutable parallel safe
  return case
    when path ~ '^[A-Za-z0-9_./-]*$'
    then replace(replace(replace(replace(path, '_', '_5f'), '-', '_2d'), '.', '_2e'), '/', '.')::ltree
    else (
      select string_agg(${SCHEMA}.label(part), '.' order by place)
      from string_to_table(path, '/') with ordinality as p (part, place)
    )::ltree
  end;`;

const COLUMN: PathColumn = {
  schema: SCHEMA,
  child: (parentPath, name) => `${parentPath} || ${SCHEMA}.label(${name})::ltree`,
  ofText: (text) => `${SCHEMA}.encoded(${text})`,
  // In a subquery, so that it is computed once and not for each row.
  given: `(select ${SCHEMA}.encoded($2))`,
  isBelow: (path, top) => `${path} <@ ${top} and ${path} <> ${top}`,
  isIn: (path, top) => `${path} <@ ${top}`,
  carried: (newTop, path, oldTop) => `${newTop} || subpath(${path}, nlevel(${oldTop}))`,
};

const INDEXES = `
  create unique index on ${SCHEMA}.nodes (mount_id, path) where deleted_at is null;
  create index on ${SCHEMA}.nodes (mount_id, path, deleted_at) where deleted_at is not null;
  create index on ${SCHEMA}.nodes using gist (path gist_ltree_ops (siglen = 100));`;

export const design: Design = {
  key: 'c',
  title: '(c) ltree',
  color: '#cc79a7',
  schema: SCHEMA,
  specialities: ['subtreeSum'],
  description: {
    is: 'The path is an `ltree`, with a unique index and a GiST index. Names are encoded, since labels allow only letters, digits and `_`.',
    lacks:
      'Paths cannot be read or sorted as people write them. A label of more than 1000 characters is refused (255 before PostgreSQL 16). Nothing proves a path.',
  },
  async unavailable(client: Client) {
    const { rows } = await client.query("select from pg_available_extensions where name = 'ltree'");
    return rows.length === 0 ? 'the server has no extension ltree' : null;
  },
  async setUp(client) {
    await client.query('create extension if not exists ltree');
    await createTables(client, {
      schema: SCHEMA,
      columns: ['path ltree not null'],
      versioned: ['path'],
      children: 'parent_id',
      more: FUNCTIONS + INDEXES + pathTriggers(COLUMN),
    });
  },
  load: (client) => loadNodes(client, SCHEMA, ', path', `, ${COLUMN.ofText('path')}`),
  ...commonStatements(SCHEMA),
  ...pathStatements(COLUMN),
};
