import { type Design, query } from '../design.ts';
import { parentStatements } from '../parent-column.ts';
import { commonStatements, createTables, loadNodes, SUMS } from '../table-definitions.ts';

const SCHEMA = 'ancestor_counters';

/** Adds what the rows of "changes" say to the counters of all directories above, which it locks in order of id. */
const CLIMB = `
  with recursive climbing (directory_id, size_bytes, file_count, dir_count) as (
    select * from changes
    union all
    select n.parent_id, c.size_bytes, c.file_count, c.dir_count
    from climbing c
    cross join lateral (select p.parent_id from ${SCHEMA}.nodes p where p.id = c.directory_id offset 0) n
    where n.parent_id is not null
  ),
  totals as (
    select directory_id, sum(size_bytes) as size_bytes, sum(file_count) as file_count, sum(dir_count) as dir_count
    from climbing
    group by directory_id
  ),
  locked as materialized (
    select k.directory_id
    from ${SCHEMA}.counters k
    where k.directory_id = any (array(select directory_id from totals))
    order by k.directory_id
    for no key update
  )
  update ${SCHEMA}.counters k
  set size_bytes = k.size_bytes + t.size_bytes,
      file_count = k.file_count + t.file_count,
      dir_count  = k.dir_count + t.dir_count
  from totals t
  join locked l using (directory_id)
  where k.directory_id = t.directory_id;`;

/** A node counts for its parent; a directory brings its own counters along when its parent changes. */
const contributions = (table: string, sign: '' | '-') => `
  select r.parent_id, ${sign}r.size_bytes, ${sign}(r.kind = 'file')::integer, ${sign}(r.kind = 'directory')::integer
  from ${table} r
  where r.parent_id is not null and r.deleted_at is null
  union all
  select r.parent_id, ${sign}k.size_bytes, ${sign}k.file_count, ${sign}k.dir_count
  from ${table} r
  join ${SCHEMA}.counters k on k.directory_id = r.id
  where r.parent_id is not null and r.kind = 'directory'`;

const SUM_OF_CHANGES =
  'directory_id, sum(size_bytes) as size_bytes, sum(file_count) as file_count, sum(dir_count) as dir_count';

const TABLES = `
  create table ${SCHEMA}.counters (
    directory_id bigint primary key,
    size_bytes   numeric not null default 0,
    file_count   bigint not null default 0,
    dir_count    bigint not null default 0
  ) with (fillfactor = 50);

  create function ${SCHEMA}.count_added() returns trigger language plpgsql as $$
  begin
    insert into ${SCHEMA}.counters (directory_id) select a.id from added a where a.kind = 'directory';
    with recursive changes (directory_id, size_bytes, file_count, dir_count) as (
      select a.parent_id, sum(a.size_bytes), count(*) filter (where a.kind = 'file'), count(*) filter (where a.kind = 'directory')
      from added a
      where a.parent_id is not null
      group by a.parent_id
    ),
    ${CLIMB.replace('with recursive ', '')}
    return null;
  end $$;
  create trigger nodes_count_added after insert on ${SCHEMA}.nodes referencing new table as added
    for each statement execute function ${SCHEMA}.count_added();

  create function ${SCHEMA}.count_changed() returns trigger language plpgsql as $$
  begin
    with recursive changes (directory_id, size_bytes, file_count, dir_count) as (
      select ${SUM_OF_CHANGES}
      from (
        ${contributions('before', '-')}
        union all
        ${contributions('after', '')}
      ) c (directory_id, size_bytes, file_count, dir_count)
      group by directory_id
      having (sum(size_bytes), sum(file_count), sum(dir_count)) <> (0, 0, 0)
    ),
    ${CLIMB.replace('with recursive ', '')}
    return null;
  end $$;
  create trigger nodes_count_changed after update on ${SCHEMA}.nodes
    referencing old table as before new table as after
    for each statement execute function ${SCHEMA}.count_changed();

  create function ${SCHEMA}.forget_removed() returns trigger language plpgsql as $$
  begin
    delete from ${SCHEMA}.counters k using removed r where k.directory_id = r.id;
    return null;
  end $$;
  create trigger nodes_forget_removed after delete on ${SCHEMA}.nodes referencing old table as removed
    for each statement execute function ${SCHEMA}.forget_removed();`;

const KEPT = 'k.size_bytes::text, k.file_count::text, k.dir_count::text';

export const design: Design = {
  key: 'e',
  title: '(e) counters above',
  color: '#56b4e9',
  schema: SCHEMA,
  specialities: ['rootTotals', 'totalsList'],
  description: {
    is: 'Parent pointers, and counters of each directory that every write updates, up to the root.',
    lacks: 'Every write locks the row of the root until it commits. Paths are recursive queries, as in (a).',
  },
  setUp: (client) => createTables(client, { schema: SCHEMA, more: TABLES }),
  load: (client) => loadNodes(client, SCHEMA),
  ...commonStatements(SCHEMA),
  ...parentStatements(SCHEMA),
  totals: (directory) =>
    query(`select ${KEPT} from ${SCHEMA}.counters k where k.directory_id = $1`, directory.id),
  totalsList: (directories) =>
    query(
      `select k.directory_id as node_id, ${KEPT}
       from ${SCHEMA}.counters k
       where k.directory_id = any ($1::bigint[])
       order by k.directory_id`,
      directories.map(({ id }) => id),
    ),
  wrongRows: (mountId) =>
    query(
      `with recursive below (top, id, kind, size_bytes) as (
         select n.parent_id, n.id, n.kind, n.size_bytes
         from ${SCHEMA}.nodes n
         where n.mount_id = $1 and n.parent_id is not null and n.deleted_at is null
         union
         select p.parent_id, b.id, b.kind, b.size_bytes
         from below b
         join ${SCHEMA}.nodes p on p.id = b.top
         where p.parent_id is not null
       ),
       counted as (select n.top as directory_id, ${SUMS} from below n group by n.top)
       select count(*) as wrong
       from ${SCHEMA}.counters k
       join ${SCHEMA}.nodes d on d.id = k.directory_id and d.mount_id = $1
       left join counted c using (directory_id)
       where (${KEPT}) is distinct from
         (coalesce(c.size_bytes, '0'), coalesce(c.file_count, '0'), coalesce(c.dir_count, '0'))`,
      mountId,
    ),
};
