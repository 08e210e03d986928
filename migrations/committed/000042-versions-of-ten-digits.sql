--! Previous: sha1:6893f6811e87dbb3546bc359604e2e7fd9857d40
--! Hash: sha1:79f8a6180c04eb02dd107bd550335260993992c2
--! Message: Versions of ten digits

--! Included functions/check_changes.sql
create or replace function filestore.check_changes(changes jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  fields text[] := '{id,expected_version,state}'::text[] || filestore.content_columns();
  fault  record;
begin
  if jsonb_typeof(changes) is distinct from 'array' then
    raise exception 'the changes are of type %, not an array of objects', coalesce(jsonb_typeof(changes), 'null')
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = 'Give a JSON array with an object for each node, such as [{"id": 1, "size_bytes": 7}].';
  end if;
  perform filestore.check_count('nodes', jsonb_array_length(changes));

  select e.position, e.problem
  into fault
  from (
    select
      g.position,
      case
        when jsonb_typeof(g.value) <> 'object' then format('is of type %s, not an object', jsonb_typeof(g.value))
        when coalesce(g.value ->> 'id' ~ '^(0|[1-9][0-9]{0,17})$', false) is false then 'has no id, or one that is not an id'
        when coalesce(g.value ->> 'expected_version' ~ '^([0-9]{1,9}|1[0-9]{9}|20[0-9]{8})$', true) is false then 'has an expected_version that is not a version'
        when g.value - fields <> '{}' then format('has the field "%s", which cannot be changed', left((
          select min(k.name)
          from jsonb_object_keys(g.value - fields) as k (name)
        ), 40))
        when g.value ->> 'state' = 'deleted' then 'would be deleted, by its state'
        when lag(g.value ->> 'id') over (order by (case jsonb_typeof(g.value) when 'object' then g.value ->> 'id' end), g.position) = g.value ->> 'id' then 'has the id of an earlier element'
      end as problem
    from jsonb_array_elements(changes) with ordinality as g (value, position)
  ) e
  where e.problem is not null
  order by e.position
  limit 1;
  if found then
    raise exception 'element % %', fault.position, fault.problem
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = format('Give each node once, by its id, and only these fields: %s. To delete nodes, call filestore.delete_node.', array_to_string(fields, ', '));
  end if;
end
$$;

comment on function filestore.check_changes(jsonb) is
  'Internal: Raises FS422 when filestore.update_nodes cannot read its changes, and names the position.';

revoke all on function filestore.check_changes(jsonb) from public;
--! EndIncluded functions/check_changes.sql
