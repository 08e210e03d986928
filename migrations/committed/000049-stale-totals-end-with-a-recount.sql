--! Previous: sha1:1aae05d194cd75c179164d1518f5308ac4562909
--! Hash: sha1:59fcf7d76537044b67f48621b72cf034afe46511
--! Message: Stale totals end with a recount

--! Included functions/guard_stale_totals.sql
create or replace function filestore.guard_stale_totals()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- recount_rollups runs as the owner.
  if not pg_has_role(current_user, (select c.relowner from pg_class c where c.oid = tg_relid), 'usage') then
    raise exception 'the totals of directory % stay stale until they are recounted', new.node_id
      using errcode    = 'FS422',
            constraint = 'rollups_stale',
            hint       = 'Call filestore.recount_rollups for its mount.';
  end if;
  return new;
end
$$;

comment on function filestore.guard_stale_totals() is
  'Lets only a recount say that stale totals are up to date.';

revoke all on function filestore.guard_stale_totals() from public;
--! EndIncluded functions/guard_stale_totals.sql
--! Included triggers/rollups_guard_stale.sql
drop trigger if exists rollups_guard_stale on filestore.rollups;

create trigger rollups_guard_stale
  before update of consistency_state on filestore.rollups
  for each row
  when (old.consistency_state = 'stale' and new.consistency_state <> 'stale')
  execute function filestore.guard_stale_totals();

comment on trigger rollups_guard_stale on filestore.rollups is
  'Lets only a recount say that stale totals are up to date.';
--! EndIncluded triggers/rollups_guard_stale.sql
