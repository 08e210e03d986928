const RAISE = "get diagnostics context = pg_context; raise notice '%%', current_user using detail = context;";

/**
 * Creates, in the first schema of the search_path, every operator and function that our functions use, under the same
 * name, and some types. Each raises a notice with the role that ran it, and the functions that called it as detail.
 */
export const TRAPS = `
  do $do$
  declare
    path    constant text   := current_setting('search_path');
    target  constant name   := current_schema();
    trap    record;
    types   constant oid[]  := array['text', 'name', 'oid', 'xid8', 'regclass', 'numeric', 'bigint', 'integer', 'boolean', 'timestamptz', 'interval',
                                     'jsonb', 'bigint[]', 'text[]']::regtype[];
    called  constant text[] := array(select distinct f.found[1] from pg_proc p, regexp_matches(p.prosrc, '(\\w+)\\(', 'g') as f (found)
                                     where p.pronamespace = 'filestore'::regnamespace);
  begin
    -- The block itself must not run the traps.
    perform set_config('search_path', 'pg_catalog', true);
    for trap in
      select 'op_' || oid as name, oprname, oprleft::regtype as a, oprright::regtype as b, oprresult::regtype as result
      from pg_operator
      where oprnamespace = 'pg_catalog'::regnamespace and oprkind = 'b' and oprleft = any (types) and oprright = any (types)
      union all
      select 'concat_bigint', '||', 'text'::regtype, 'bigint'::regtype, 'text'::regtype
    loop
      execute format('create function %I.%I(%s, %s) returns %s language plpgsql set search_path = pg_catalog as %L', target, trap.name, trap.a, trap.b, trap.result,
        format($f$declare context text; begin ${RAISE} return $1 operator(pg_catalog.%s) $2; end$f$, trap.oprname));
      execute format('create operator %I.%s (leftarg = %s, rightarg = %s, function = %I.%I)', target, trap.oprname, trap.a, trap.b, target, trap.name);
    end loop;
    for trap in
      select proname as name, oidvectortypes(proargtypes) as arguments, prorettype::regtype as result,
        (select string_agg('$' || n, ', ') from generate_series(1, pronargs) n) as values
      from pg_proc
      where pronamespace = 'pg_catalog'::regnamespace and prokind = 'f' and not proretset and provariadic = 0
        and not proargtypes::oid[] && array['internal', 'cstring', '"any"']::regtype[]::oid[]
        and proname = any (called)
      union all
      select 'format', arguments, 'text'::regtype, (select string_agg('$' || n, ', ') from generate_series(1, pronargs) n)
      from (values ('text, bigint, text', 3), ('text, regclass, text, name', 4)) as known (arguments, pronargs)
    loop
      execute format('create function %I.%I(%s) returns %s language plpgsql set search_path = pg_catalog as %L', target, trap.name, trap.arguments, trap.result,
        format($f$declare context text; begin ${RAISE} %s pg_catalog.%I(%s); end$f$,
          case when trap.result = 'void'::regtype then 'perform' else 'return' end, trap.name, trap.values));
    end loop;
    perform set_config('search_path', path, true);
  end
  $do$;
  create function use_type(pg_catalog.text) returns boolean language plpgsql set search_path = pg_catalog
    as $f$declare context text; begin get diagnostics context = pg_context; raise notice '%', current_user using detail = context; return true; end$f$;
  create domain text as pg_catalog.text check (use_type(value));
  create domain record as pg_catalog.text check (use_type(value));
  create domain oid as pg_catalog.oid check (use_type(value::pg_catalog.text));
  create domain timestamptz as pg_catalog.timestamptz check (use_type(value::pg_catalog.text))`;
