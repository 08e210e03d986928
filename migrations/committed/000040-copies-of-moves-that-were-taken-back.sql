--! Previous: sha1:a3e350a278536e0b153b2ce59194ff7d8ccb4854
--! Hash: sha1:97c6ce1b5bd48082ea23c42ea8b830936b8fc3b8
--! Message: Copies of moves that were taken back

--! Included functions/cancel_step.sql
create or replace function filestore.cancel_step(mount_key text, receipt jsonb, batch integer)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  move  filestore.moves := filestore.find_move(cancel_step.mount_key);
  ended jsonb := jsonb_build_object('move', move.id, 'canceled', true);
begin
  perform filestore.check_limit('batch', batch);
  if move.step = 'canceled' then
    return ended;
  elsif move.step in ('received', 'finished') and not filestore.keeps_moved_mount(move) then
    perform filestore.refuse_step(move, 'filestore.cancel_move');
  elsif move.step = 'canceling' then
    perform filestore.lock_moving_mount(move);
    update filestore.backend_mounts m
    set held_by = null
    where m.id = move.mount_id;
    perform filestore.set_step(move, 'canceled');
    return ended;
  elsif move.step = 'erasing' then
    -- No service writes to the copy.
    if filestore.erase_batch(move.mount_id, batch, null) = 0 then
      delete from filestore.moves m
      where m.id = move.id
        and m.written_by = move.source_number;
      perform filestore.set_step(move, 'canceled');
      return ended;
    end if;
  elsif move.source_number = move.written_by then
    -- Until the target has given up, it may have the mount, and this server may not know.
    if receipt is not null or move.step in ('released', 'finished') then
      perform filestore.require_receipt(move, receipt, '{"canceled": true}', 'filestore.cancel_move on the target');
    else
      perform filestore.require_same_timeline(move);
    end if;
    -- In an earlier transaction than the next change of the mount, which the target must not get. A table that still waits for its copy
    -- would be copied with the rows of all mounts if there were no publication, so it stays, without rows.
    if exists (
      select
      from pg_publication p
      where p.pubname = format('filestore_move_%s', move.id)
    ) then
      execute format(
        'alter publication filestore_move_%s
           set table filestore.backend_mounts where (false),
               table filestore.nodes where (false),
               table filestore.snapshots where (false),
               table filestore.journal_entries where (false),
               table filestore.moves where (false)',
        move.id
      );
    end if;
    perform filestore.set_step(move, 'canceling');
  else
    perform filestore.require_no_subscription(move);
    perform filestore.lock_moving_mount(move);
    update filestore.backend_mounts m
    set erasing_since = date_trunc('milliseconds', clock_timestamp())
    where m.id = move.mount_id;
    perform filestore.set_step(move, 'erasing');
  end if;
  return null;
end
$$;

comment on function filestore.cancel_step(text, jsonb, integer) is
  'Internal: The next transaction of filestore.cancel_move; its receipt at the end, else null.';

revoke all on function filestore.cancel_step(text, jsonb, integer) from public;
--! EndIncluded functions/cancel_step.sql

--! Included functions/guard_statements.sql
create or replace function filestore.guard_statements(wanted boolean)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  moving text := (
    select coalesce(min(m.mount_key), min(b.mount_key))
    from filestore.moves m
    full join filestore.backend_mounts b on false
    where m.finished_at is null and m.id is not null
       or b.held_by is not null
  );
begin
  if wanted is not true and moving is not null then
    raise exception 'mount "%" is moving between servers', moving
      using errcode    = 'FS409',
            constraint = 'backend_mounts_moving',
            hint       = 'Finish the move and erase the mount on its old server, or take the move back with filestore.cancel_move.';
  end if;
  return array(
    select format('alter table %s %s trigger %I', t.tgrelid::regclass, case when wanted then 'enable' else 'disable' end, t.tgname)
    from pg_trigger t
    where t.tgfoid = 'filestore.guard_move()'::regprocedure
      and (t.tgenabled = 'D') = (wanted is true)
    union all
    select format('alter table %s replica identity %s', c.oid::regclass, case when wanted then 'full' else 'default' end)
    from pg_class c
    where c.oid = any ('{filestore.nodes,filestore.snapshots,filestore.journal_entries}'::regclass[])
      and c.relreplident <> case when wanted then 'f' else 'd' end
    union all
    -- Of moves that were taken back. While its slot exists, a target may still begin to copy.
    select format('drop publication %I', p.pubname)
    from pg_publication p
    where wanted is not true
      and p.pubname ~ '^filestore_move_[0-9]{1,18}$'
      and pg_has_role(p.pubowner, 'usage')
      and not exists (
        select
        from pg_replication_slots s
        where s.slot_name = filestore.move_slot(substr(p.pubname, length('filestore_move_') + 1)::bigint)
      )
  );
end
$$;

comment on function filestore.guard_statements(boolean) is
  'Internal: The statements that filestore.prepare_moves still has to run. FS409 while a mount moves, if the guards are not wanted any more.';

revoke all on function filestore.guard_statements(boolean) from public;
--! EndIncluded functions/guard_statements.sql

--! Included functions/move_steps.sql
create or replace function filestore.move_steps()
returns table (server text, step text, meaning text, forward text, back text)
language plpgsql
immutable
rows 14
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  values
    ('source', 'copying',    'published; this server takes writes',
     'accept_move and create subscription on the target, prove_mount here',
     'cancel_move here, drop subscription and cancel_move on the target'),
    ('source', 'marking',    'waits for transactions that wrote before the mark; this server takes writes',
     'prove_mount here, until it returns a receipt',
     'cancel_move here, drop subscription and cancel_move on the target'),
    ('source', 'proved',     'its rows up to the mark are counted; this server takes writes',
     'prove_mount on the target, close_mount here with its receipt',
     'cancel_move here, drop subscription and cancel_move on the target'),
    ('source', 'closed',     'cut-over: no server takes writes; this one does again when the time is over',
     'prove_mount on the target, release_mount here with its receipt',
     'nothing: the next writer opens the mount when the time is over; or cancel_move here'),
    ('source', 'released',   'closed here forever; the target takes writes once it knows',
     'receive_mount, receive_sightings, drop subscription and finish_move on the target, finish_move here with its receipt',
     'drop subscription and cancel_move on the target, if it has not received the mount, then cancel_move here with its receipt; else move the mount back'),
    ('source', 'canceling',  'being taken back: nothing is published any more',
     'cancel_move here, until it ends',
     'nothing'),
    ('source', 'finished',   'the mount is on the target',
     'erase_mount here',
     'move the mount back; if the target lost it and nothing is erased here, cancel_move on the target, then here with its receipt'),
    ('source', 'canceled',   'taken back; this server holds the mount',
     'nothing, or start_move again',
     'nothing'),
    ('target', 'accepted',   'the copy arrives; no writes here',
     'create subscription here, then prove_mount on the source and here',
     'cancel_move on the source, drop subscription and cancel_move here'),
    ('target', 'proved',     'everything up to the receipt is here; no writes here',
     'close_mount or release_mount on the source with the receipt of prove_mount, then receive_mount here',
     'cancel_move on the source, drop subscription and cancel_move here'),
    ('target', 'received',   'this server takes writes',
     'receive_sightings, drop subscription and finish_move here, finish_move on the source with its receipt',
     'finish the move, and move the mount back'),
    ('target', 'erasing',    'being taken back: the copy is erased',
     'cancel_move here, until it ends',
     'nothing'),
    ('target', 'finished',   'this server holds the mount',
     'finish_move on the source with the receipt of finish_move',
     'move the mount back'),
    ('target', 'canceled',   'taken back; nothing of the copy is left',
     'nothing, or accept_move again for a new move',
     'nothing');
end
$$;

comment on function filestore.move_steps() is
  'Internal: Every step of a move, its meaning, and the ways forward and back.';

revoke all on function filestore.move_steps() from public;
--! EndIncluded functions/move_steps.sql

