--! Previous: sha1:1aae05d194cd75c179164d1518f5308ac4562909
--! Hash: sha1:9f58569d747742e5c7eae34dca5aeb907133a263
--! Message: Stale totals end with a recount

--! Included functions/guard_stale_totals.sql
create or replace function filestore.guard_stale_totals()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'the totals of directory % stay stale until they are recounted', new.node_id
    using errcode    = 'FS422',
          constraint = 'rollups_stale_check',
          hint       = 'Call filestore.recount_rollups for its mount.';
end
$$;

comment on function filestore.guard_stale_totals() is
  'Refuses to say that stale totals are up to date.';

revoke all on function filestore.guard_stale_totals() from public;
--! EndIncluded functions/guard_stale_totals.sql
--! Included triggers/rollups_guard_stale.sql
drop trigger if exists rollups_guard_stale on filestore.rollups;

create trigger rollups_guard_stale
  before update of consistency_state on filestore.rollups
  for each row
  -- recount_rollups runs as the owner, who may truncate the table.
  when (old.consistency_state = 'stale' and new.consistency_state <> 'stale' and not has_table_privilege('filestore.rollups', 'truncate'))
  execute function filestore.guard_stale_totals();

comment on trigger rollups_guard_stale on filestore.rollups is
  'Lets only a recount say that stale totals are up to date.';
--! EndIncluded triggers/rollups_guard_stale.sql
