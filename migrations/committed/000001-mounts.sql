--! Previous: -
--! Hash: sha1:c55264ab38af369cbc9677a7e423bcb8e14e53a6
--! Message: Mounts

-- Names are compared and measured as UTF-8 bytes. In another encoding, the rules about lengths and control characters
-- would be wrong.
do $$
begin
  if current_setting('server_encoding') <> 'UTF8' then
    raise exception 'the database is encoded in %, but filestore needs UTF8', current_setting('server_encoding')
      using errcode = 'FS422',
            hint    = 'Create the database with: create database ... encoding ''UTF8'' template template0';
  end if;
end
$$;

create schema if not exists filestore;

comment on schema filestore is
  'Catalogue of files and directories on local disks and in S3. Only graphile-migrate migrations change its objects.';

do $$
begin
  if to_regtype('filestore.place') is null then
    create type filestore.place as range (subtype = text, collation = "C");
  end if;
end
$$;

comment on type filestore.place is 'The text of a place and of everything in it. Two places overlap when they are equal or one is inside the other.';

--! Included functions/mount_place.sql
create or replace function filestore.mount_place(
  backend_kind text,
  root_path text default null,
  endpoint text default null,
  bucket text default null,
  prefix text default null
)
returns filestore.place
language sql
immutable parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- The text ends with a slash, and '0' follows '/': the range has this place and all texts that begin with it.
  select filestore.place(p.name, left(p.name, -1) || '0')
  from (
    select case
      when backend_kind = 'local' then rtrim(root_path, '/') || '/'
      else 's3:' || coalesce(endpoint, '') || ' ' || bucket || '/' || coalesce(prefix || '/', '')
    end
  ) as p (name);
end;

comment on function filestore.mount_place(text, text, text, text, text) is
  'The place of a mount: a directory, or an endpoint, bucket and prefix, with everything in it. The places of two mounts do not overlap (&&).';

revoke all on function filestore.mount_place(text, text, text, text, text) from public;
--! EndIncluded functions/mount_place.sql

create table if not exists filestore.backend_mounts (
  id              bigint         generated always as identity (maxvalue 1099511627775),
  mount_key       text           collate "C" not null,
  display_name    text,
  description     text,
  labels          jsonb          not null default '{}',
  contact         text,
  backend_kind    text           not null,
  root_path       text           collate "C",
  endpoint        text           collate "C",
  bucket          text           collate "C",
  prefix          text           collate "C",
  config          jsonb          not null default '{}',
  credentials_ref text,
  access_mode     text           not null default 'rw',
  access_policy   jsonb          not null default '{}',
  state           text           not null default 'active',
  state_reason    text,
  erasing_since   timestamptz(3),
  held_by         integer,
  version         integer        not null default 1,
  created_at      timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),
  updated_at      timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),

  constraint backend_mounts_pkey
    primary key (id),
  constraint backend_mounts_mount_key_key
    unique (mount_key),
  constraint backend_mounts_mount_key_check
    check (octet_length(mount_key) <= 128 and mount_key ~ '^[A-Za-z0-9][A-Za-z0-9._-]*$'),
  constraint backend_mounts_backend_kind_check
    check (backend_kind in ('local', 's3')),
  constraint backend_mounts_access_mode_check
    check (access_mode in ('rw', 'ro')),
  constraint backend_mounts_state_check
    check (state in ('active', 'inactive', 'offline', 'degraded', 'error', 'unknown')),
  constraint backend_mounts_version_check
    check (version >= 1),
  constraint backend_mounts_place_check
    check (
      case backend_kind
        when 'local' then root_path is not null and endpoint is null and bucket is null and prefix is null
        when 's3'    then root_path is null and bucket is not null
      end
    ),
  -- Each place has one spelling, so that the exclusion finds every other mount of it. Places are short, so that several fit
  -- on a page of its index.
  constraint backend_mounts_root_path_check
    check (
      root_path = '/'
      or (octet_length(root_path) <= 1024 and root_path ~ '^(/[^/]+)+$' and root_path !~ '/\.{1,2}(/|$)' and root_path !~ '[\u0001-\u001f\u007f-\u009f]')
    ),
  -- In lower case, without a trailing slash and without the port that the scheme has anyway.
  constraint backend_mounts_endpoint_check
    check (
      octet_length(endpoint) <= 255
      and endpoint ~ '^https?://([a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[[][0-9a-f:.]+[]])(:[1-9][0-9]{0,4})?(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$'
      and endpoint !~ '^(http://[^/]*:80|https://[^/]*:443)(/|$)'
    ),
  constraint backend_mounts_bucket_check
    check (octet_length(bucket) >= 3 and octet_length(bucket) <= 255 and bucket ~ '^[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]$'),
  -- Null and never '' for the whole bucket, so that it has one spelling.
  constraint backend_mounts_prefix_check
    check (octet_length(prefix) <= 512 and prefix ~ '^[^/]+(/[^/]+)*$' and prefix !~ '[\u0001-\u001f\u007f-\u009f]'),
  constraint backend_mounts_display_name_check
    check (display_name <> '' and octet_length(display_name) <= 256 and display_name !~ '[\u0001-\u001f\u007f-\u009f]'),
  constraint backend_mounts_description_check
    check (octet_length(description) <= 8192 and description !~ '[\u0001-\u0008\u000b-\u001f\u007f-\u009f]'),
  constraint backend_mounts_labels_check
    check (jsonb_typeof(labels) = 'object'),
  constraint backend_mounts_contact_check
    check (contact <> '' and octet_length(contact) <= 256 and contact !~ '[\u0001-\u001f\u007f-\u009f]'),
  constraint backend_mounts_credentials_ref_check
    check (credentials_ref <> '' and octet_length(credentials_ref) <= 1024 and credentials_ref !~ '[\u0001-\u001f\u007f-\u009f]'),
  constraint backend_mounts_state_reason_check
    check (octet_length(state_reason) <= 8192),
  constraint backend_mounts_config_check
    check (jsonb_typeof(config) = 'object'),
  constraint backend_mounts_access_policy_check
    check (jsonb_typeof(access_policy) = 'object'),
  constraint backend_mounts_place_excl
    exclude using gist (filestore.mount_place(backend_kind, root_path, endpoint, bucket, prefix) with &&)
);

comment on table  filestore.backend_mounts                 is 'A configured root: a directory of a local disk, or a bucket (and prefix) in S3. Inserting one creates the root node of its tree.';
comment on column filestore.backend_mounts.id              is 'Stable number of the mount; never reused.';
comment on column filestore.backend_mounts.mount_key       is 'Name by which services and people address the mount: letters, digits, dot, underscore, hyphen; at most 128 bytes.';
comment on column filestore.backend_mounts.display_name    is 'Name for people; at most 256 bytes.';
comment on column filestore.backend_mounts.description     is 'What the mount is for; at most 8 KiB. Tabs and line feeds are its only control characters. A secret in it is refused.';
comment on column filestore.backend_mounts.labels          is 'A JSON object by which people group mounts, such as {"team": "imaging"}. A secret in it is refused; at most 64 KiB as text.';
comment on column filestore.backend_mounts.contact         is 'Contact for questions about the mount, such as a mail address; at most 256 bytes, without control characters.';
comment on column filestore.backend_mounts.backend_kind    is 'local or s3. Never changes.';
comment on column filestore.backend_mounts.root_path       is 'Local mounts: absolute, canonical path of the directory. Null on S3.';
comment on column filestore.backend_mounts.endpoint        is 'S3 mounts: URL of the server, such as https://minio.example:9000, in lower case and without a trailing slash; null for the provider''s default. Null on local mounts.';
comment on column filestore.backend_mounts.bucket          is 'S3 mounts: name of the bucket. Null on local mounts.';
comment on column filestore.backend_mounts.prefix          is 'S3 mounts: key prefix without leading or trailing slash; null for the whole bucket.';
comment on column filestore.backend_mounts.config          is 'Settings of the backend, such as its region. A secret in it is refused; at most 64 KiB as text.';
comment on column filestore.backend_mounts.credentials_ref is 'Name of the secret with the credentials of the backend; never the secret itself. At most 1024 bytes, without control characters.';
comment on column filestore.backend_mounts.access_mode     is 'rw, or ro for a mount that commands must not change.';
comment on column filestore.backend_mounts.access_policy   is 'Who may do what on the mount, as the service defines it. A secret in it is refused; at most 64 KiB as text.';
comment on column filestore.backend_mounts.state           is 'active, inactive, offline, degraded, error or unknown: what the service last knew of the backend.';
comment on column filestore.backend_mounts.state_reason    is 'Why the mount is in its state; at most 8 KiB. Write it together with the state.';
comment on column filestore.backend_mounts.erasing_since   is 'When the owner began to erase the mount with everything in it; null otherwise. Set by filestore.erase_mount only.';
comment on column filestore.backend_mounts.held_by         is 'While the mount moves to another server: the number of the database that takes its writes, or -1 for none, during the cut-over. Null otherwise. Set only by the functions that move it.';
comment on column filestore.backend_mounts.version         is 'Optimistic version: a trigger adds 1 at every change.';
comment on column filestore.backend_mounts.created_at      is 'When the row was inserted.';
comment on column filestore.backend_mounts.updated_at      is 'When version last changed.';

comment on constraint backend_mounts_place_check         on filestore.backend_mounts is 'A local mount has only root_path. An S3 mount has bucket, perhaps endpoint and prefix, but no root_path.';
comment on constraint backend_mounts_root_path_check     on filestore.backend_mounts is 'root_path is absolute, without empty, "." or ".." segments, without a trailing slash or control characters.';
comment on constraint backend_mounts_endpoint_check      on filestore.backend_mounts is 'endpoint is an http or https URL with one spelling: lower case, no trailing slash, no default port, no user, no query.';
comment on constraint backend_mounts_place_excl          on filestore.backend_mounts is 'No mount is at the place of another mount, or inside it.';

--! Included functions/find_mount.sql
create or replace function filestore.find_mount(mount_key text)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint;
begin
  select m.id
  into mount_id
  from filestore.backend_mounts m
  where m.mount_key = find_mount.mount_key;

  if mount_id is null then
    raise exception 'mount "%" does not exist', left(mount_key, 128)
      using errcode    = 'FS404',
            constraint = 'backend_mounts_missing',
            hint       = 'To list the mounts, run: select mount_key from filestore.backend_mounts';
  end if;
  return mount_id;
end
$$;

comment on function filestore.find_mount(text) is
  'Internal: The id of the mount with a key; FS404 when there is none.';

revoke all on function filestore.find_mount(text) from public;
--! EndIncluded functions/find_mount.sql
--! Included functions/refuse_truncate.sql
create or replace function filestore.refuse_truncate()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'filestore.% cannot be truncated', tg_table_name
    using errcode    = 'FS409',
          constraint = 'truncate_check',
          hint       = 'Delete the rows instead: truncate does not run the triggers that guard them.';
end
$$;

comment on function filestore.refuse_truncate() is
  'Refuses truncate, which would bypass the triggers that guard rows.';

revoke all on function filestore.refuse_truncate() from public;
--! EndIncluded functions/refuse_truncate.sql
--! Included functions/refuse_version.sql
create or replace function filestore.refuse_version(row_name text, current_version integer, given_version integer)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if given_version = current_version + 1 then
    raise exception '% did not change, so its version stays at %', row_name, current_version
      using errcode    = 'FS422',
            constraint = 'version_check',
            hint       = 'Leave version out of the update: the database increments it.';
  end if;
  raise exception '% is at version %, and cannot be set to version %', row_name, current_version, given_version
    using errcode    = 'FS409',
          constraint = 'version_check',
          hint       = 'Leave version out of the update: the database increments it. To detect a concurrent change, add "where version = ..." and check the number of changed rows.';
end
$$;

comment on function filestore.refuse_version(text, integer, integer) is
  'Internal: Raises FS409 or FS422: an update cannot set the version.';

revoke all on function filestore.refuse_version(text, integer, integer) from public;
--! EndIncluded functions/refuse_version.sql
--! Included functions/is_backfill.sql
create or replace function filestore.is_backfill(before jsonb, after jsonb)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Any role can set filestore.backfill_id. Only the owner can write to backfills, so its transaction_id is the proof.
  return exists (
    select
    from filestore.backfills b
    where b.id::text = current_setting('filestore.backfill_id', true)
      and b.transaction_id = pg_current_xact_id_if_assigned()
      and before -> b.column_name = 'null'
      and before - b.column_name = after - b.column_name
  );
end
$$;

comment on function filestore.is_backfill(jsonb, jsonb) is
  'Internal: Whether a batch of filestore.backfill is the only change of a row, so that its version stays. Called when the setting filestore.backfill_id is set.';

revoke all on function filestore.is_backfill(jsonb, jsonb) from public;
--! EndIncluded functions/is_backfill.sql
--! Included functions/is_small_json.sql
create or replace function filestore.is_small_json(value jsonb, bytes integer)
returns boolean
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A number such as 1e131071 is stored in 8 bytes, but its text has 131072. In strict mode, the numbers of an array are
  -- not found twice.
  numbers jsonb   := jsonb_path_query_array(value, 'strict $.** ? (@.type() == "number")');
  more    integer := jsonb_array_length(numbers);
  size    integer := 0;
begin
  if more > 32 then
    while more > 0 and size <= bytes loop
      more := more - 1;
      size := size + octet_length(numbers ->> more);
    end loop;
    if size > bytes then
      return false;
    end if;
  end if;
  -- Everything but numbers has at most six times as many bytes as it is stored in.
  size := octet_length(value::text);
  -- JSON.stringify, and the readers of some other languages, end with an error after some thousand levels or fewer.
  if size > 1000 and size <= bytes then
    return not jsonb_path_exists(value, 'strict $.**{501}');
  end if;
  return size <= bytes;
end
$$;

comment on function filestore.is_small_json(jsonb, integer) is
  'Internal: Whether the text of a JSON value, which is what a reader gets, has at most so many bytes, and at most 500 levels. The text is not built when long numbers would make it huge.';

revoke all on function filestore.is_small_json(jsonb, integer) from public;
--! EndIncluded functions/is_small_json.sql
--! Included functions/holds_secret.sql
create or replace function filestore.holds_secret(given text)
returns boolean
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Without backslashes, since a caller may have switched standard_conforming_strings off.
  url         constant text := '(^|[[:space:]"''`=(<,;:])//[^/?#@:[:space:]]*:(?!xxx)[^/?#@:[:space:]<{$*[(][^/?#@[:space:]]*@[^[:space:]]'
    || '|[^[:space:]:@/]:[^[:space:]:@/]+@(tcp|udp|unix)[(]';
  private_key constant text := '-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY';
  credentials constant text := '([Aa]uthorization|AUTHORIZATION)["'']? ?[:=] ?["'']?([Bb]earer|BEARER|[Bb]asic|BASIC|[Tt]oken) +[[:alnum:]_~-]*([0-9.+/=]|[a-z][A-Z])'
    || '|^([Bb]earer|BEARER) +[[:alnum:]_-]{2,}[.][[:alnum:]_-]{2,}[.][[:alnum:]_-]{2,}$';
  issued      constant text := '(^|[^[:alnum:]])('
    || 'gh[opsur]_[[:alnum:]]{10}|github_pat_[[:alnum:]]{10}|glpat-[[:alnum:]_-]{10}|xox[a-z]-[[:alnum:]-]{10}|[rs]k_(live|test)_[[:alnum:]]{10}'
    || '|sk-(ant-|proj-)?[[:alnum:]]{16}|AIza[[:alnum:]_-]{20}|hv[brs][.][[:alnum:]_-]{10}|npm_[[:alnum:]]{20}'
    || '|eyJ[[:alnum:]_-]{5,}[.][[:alnum:]_-]{5,}[.])';
begin
  return (strpos(given, '@') > 0 and given ~ url)
    or (strpos(given, 'PRIVATE KEY') > 0 and given ~ private_key)
    or given ~ credentials
    or given ~ issued;
end
$$;

comment on function filestore.holds_secret(text) is
  'Internal: Whether a text contains what can only be a secret: a URL with a password, a private key, an Authorization header with its value, or a token with the prefix of its issuer. docs/schema.md has the rule.';

revoke all on function filestore.holds_secret(text) from public;
--! EndIncluded functions/holds_secret.sql
--! Included functions/names_secret.sql
create or replace function filestore.names_secret(name text, value text)
returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Matched against a name whose words are separated by blanks. Without backslashes, since a caller may have switched
  -- standard_conforming_strings off.
  ending    constant text := 's?[0-9]*( (values?|text|string|str|plain|plaintext|clear|cleartext|raw|data|content|pem|base64|b64|hex|encoded'
    || '|current|old|new|previous|primary|secondary|main|default|prod|production|staging|dev|test|live|v?[0-9]+))*$';
  password  constant text := '((password|passwd|passphrase|passcode)|(^| )(pwd|pw)|(^|(^| )(db|database|user|admin|root|smtp|ftp|ssh|mysql|pg|redis|proxy) ?)(pass|pwd))';
  other     constant text := '((secret|private|api|signing|encryption|hmac|shared|master|account)( ?access)? ?key'
    || '|^secret|(^| )(client|app|application|consumer|api|shared|webhook|signing|jwt|oauth2?|hmac|auth|cookie|session|user|totp|aws|azure|s3|db) ?secret'
    || '|^token|(^| )(access|refresh|auth|api|bearer|id|session|security|sas|bot|personal|deploy|jwt|oauth2?|app|client|user|admin|service|account|github|gitlab|slack|vault|npm|registry|storage|aws|azure|gcp|s3|private|webhook) ?token'
    || '|shared ?access ?signature)';
  -- "usesToken" and "maxTokens" are about a secret, and do not hold one.
  about     constant text := '^(uses?|using|has|have|is|no|non|not|needs?|requires?|required|allows?|enabled?|disabled?|skip|with|without|max|min|num|count|rotate|reset|forgot|change|show|hide|mask|ask|prompt|validate|verify|expires?)( |$)';
  state     constant text := '^(yes|no|on|off|true|false|none|null|nil|unset|missing|required|optional|enabled|disabled|always|never|auto|default|unknown'
    || '|expired|invalid|revoked|rotated|rotating|removed|redacted|hidden|masked|pending|active|inactive|hourly|daily|weekly|monthly|yearly'
    || '|string|text|see|ask|n/a|tbd|todo|prompt|env|file|header|cookie|query|static|dynamic|shared|managed|manual|automatic|opaque|kubernetes'
    || '|iam|sso|oidc|rbac|ldap|saml|mtls|oauth2?|jwt|bearer|basic|digest|kerberos|vault|kms|sts|bcrypt|argon2|sha256)$';
  -- A placeholder, a name of a variable, a file, a URL, or a path.
  reference constant text := '^([[<{%]|#[{]|[$][{(A-Za-z_]|@[A-Za-z]+[.]|__[A-Z]|[*.#_-]+$|[xX]{3,}$|[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$|[A-Za-z0-9_.-]+[.](pem|key|txt|json|ya?ml|env|p12|pfx|jks)$'
    || '|[.]{0,2}/|~/|[A-Za-z][A-Za-z0-9+.-]*:[^[:space:]]|[a-z0-9_.-]+(/[a-z0-9_.-]+)+$)';
  -- A locale such as tr compares I and i as different letters.
  title     constant text collate "C" := name;
  secret    text collate "C";
  words     text collate "C";
begin
  if title !~* 'pass|pwd|pw|secret|token|key|sig' or coalesce(btrim(value), '') = '' then
    return false;
  end if;
  secret := left(btrim(value), 300);
  if (length(secret) < 12 and lower(secret) ~ state) or secret ~ reference then
    return false;
  elsif title ~* '^[?&](x-[a-z]+-)?sig(nature)?$' then
    -- A signed URL.
    return true;
  end if;

  -- "dbPassword2", "DBPassword" and "DB_PASSWORD" become "db password". A longer name is not that of a secret.
  words := btrim(regexp_replace(
    lower(regexp_replace(regexp_replace(right(title, 100), '([a-z0-9])([A-Z])', E'\\1 \\2', 'g'), '([A-Z]+)([A-Z][a-z])', E'\\1 \\2', 'g')),
    '[^a-z0-9]+', ' ', 'g'
  ));
  if words ~ about then
    return false;
  elsif words ~ (password || ending) then
    return secret !~ '^[0-9]{1,3}$' and (secret !~ '[[:space:]]' or words ~ 'passphrase');
  end if;
  -- The name of a secret in a store, such as media-s3, is not the secret. The key of an account may be its name.
  return words ~ (other || ending)
    and secret !~ '^[0-9.]+$|[[:space:]]'
    and (secret !~ '^[A-Za-z]+$' or words !~ '(signing|encryption|shared|master|account) ?key')
    and (secret !~ '^[a-z][a-z0-9]*(-[a-z0-9]+)+$' or secret ~ '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$');
end
$$;

comment on function filestore.names_secret(text, text) is
  'Internal: Whether a setting with this name and value is a secret: the name ends in the word for one, and the value is not a state, a placeholder or a reference. docs/schema.md has the rule.';

revoke all on function filestore.names_secret(text, text) from public;
--! EndIncluded functions/names_secret.sql
--! Included functions/find_secret.sql
create or replace function filestore.find_secret(settings jsonb)
returns text
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
-- The parts of 64 KiB of JSON fit.
set work_mem = '32MB'
as $$
declare
  -- E'' strings, since a caller may have switched standard_conforming_strings off. The tokens have no common characters
  -- with those after them, so that the time is linear.
  assignment constant text := E'([?&]?[A-Za-z0-9_.-]+)(?:["'']?=["'']?|["'']? =>? ["'']|["''] ?: ?["'']?|: ?["''])([^[:space:]&;,"'']+)';
  line       constant text := E'^[ \t]*(?:- )?([A-Za-z0-9_.-]+)(?:: +| ?= ?)([^[:space:]"'']+)[ \t\r]*$';
  element    constant text := '<([A-Za-z0-9_.:-]+)>([^<>[:space:]]+)<';
  -- A locale such as tr compares I and i as different letters.
  words      constant text collate "C" := 'pass|pwd|pw|secret|token|key|sig';
  part       record;
  given      text;
begin
  for part in
    with recursive parts (path, parent, key, name, value) as (
      select case jsonb_typeof(find_secret.settings) when 'string' then 'the value' end, null::text, null::text, null::text, find_secret.settings
      union all
      -- Shortened, so that the parts together have no more than a multiple of the bytes of the settings.
      select left(concat_ws('.', p.path, left(c.key, 100)), 300), p.path, c.key, right(c.name, 100), c.value
      from parts p
      cross join lateral (
        -- The value of {"name": "...", "value": "..."} has that name, and {"password": {"value": "..."}} is passwordValue.
        select
          o.key,
          case
            when n.name is not null then n.name
            when p.name ~* words and o.key !~* words and length(o.key) <= 20 and filestore.names_secret('password_' || o.key, '?') then p.name || '_' || o.key
            else o.key
          end as name,
          o.value
        from jsonb_each(case jsonb_typeof(p.value) when 'object' then p.value end) o
        left join lateral (
          select coalesce(p.value ->> 'name', p.value ->> 'Name', p.value ->> 'key', p.value ->> 'Key', p.value ->> 'variable', p.value ->> 'header') as name
          where lower(o.key) in ('val', 'value')
        ) n on true
        union all
        select (a.position - 1)::text, p.name, a.value
        from jsonb_array_elements(case jsonb_typeof(p.value) when 'array' then p.value end) with ordinality as a (value, position)
        where jsonb_typeof(a.value) in ('object', 'array')
           or (jsonb_typeof(a.value) = 'string' and (p.name ~* words or length(a.value #>> '{}') >= 8))
      ) c
      where jsonb_typeof(p.value) in ('object', 'array')
    )
    select p.path, p.parent, p.key, p.name, p.value
    from parts p
    where p.path is not null
  loop
    if length(part.key) > 8 and filestore.holds_secret(part.key) then
      -- The path has *** for this key, because the key contains the secret.
      return concat_ws('.', part.parent, '***');
    elsif jsonb_typeof(part.value) not in ('string', 'number') then
      continue;
    end if;
    given := part.value #>> '{}';
    if part.name ~* words and filestore.names_secret(part.name, given) then
      return part.path;
    elsif length(given) < 7 or jsonb_typeof(part.value) = 'number' then
      continue;
    elsif filestore.holds_secret(case when part.name ~* 'auth|header' then 'Authorization: ' end || given) or filestore.holds_secret(given) then
      return part.path;
    elsif given ~* words and given ~ '[=:>]' and exists (
      select
      from (
        select regexp_matches(given, assignment, 'g')
        union all
        -- A line of prose may be "Password: 1Password".
        select regexp_matches(given, line, 'gn')
        where part.key is not null
        union all
        select regexp_matches(given, element, 'g')
      ) found (pair)
      where found.pair[1] ~* words
        and filestore.names_secret(found.pair[1], found.pair[2])
    ) then
      return part.path;
    end if;
  end loop;
  return null;
end
$$;

comment on function filestore.find_secret(jsonb) is
  'Internal: The path of the first part of a JSON value that looks like a secret, or null: a setting with the name of a secret and a value that can be one, an assignment of one in a text, or a text that contains what can only be a secret. docs/schema.md has the rule. Its time and memory grow with the size of the value.';

revoke all on function filestore.find_secret(jsonb) from public;
--! EndIncluded functions/find_secret.sql
--! Included functions/check_mount_settings.sql
create or replace function filestore.check_mount_settings(column_name text, settings jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  secret text;
begin
  if jsonb_path_exists(settings, 'strict $.**{33}') then
    raise exception '% nests deeper than 32 levels', column_name
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_depth_check',
            hint       = 'Give a value with at most 32 levels.';
  elsif not filestore.is_small_json(settings, 65536) then
    raise exception '% has more than 65536 bytes', column_name
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_size_check',
            hint       = 'Give at most 65536 bytes of JSON text.';
  end if;
  secret := filestore.find_secret(settings);
  if secret is not null then
    -- A check constraint would quote the row, and so the secret, to the client and in the server's log.
    raise exception '% contains a secret: %', column_name, left(secret, 200)
      using errcode    = 'FS422',
            constraint = 'backend_mounts_secret_check',
            hint       = 'Put the secret into a secret store, and its name into credentials_ref. docs/schema.md has the rule.';
  end if;
end
$$;

comment on function filestore.check_mount_settings(text, jsonb) is
  'Internal: Raises FS422 when settings of a mount are too big, nest too deeply or contain a secret, without quoting it.';

revoke all on function filestore.check_mount_settings(text, jsonb) from public;
--! EndIncluded functions/check_mount_settings.sql
--! Included functions/prepare_mount.sql
create or replace function filestore.prepare_mount()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  given_version integer := new.version;
begin
  if new.config is distinct from old.config then
    perform filestore.check_mount_settings('config', new.config);
  end if;
  if new.access_policy is distinct from old.access_policy then
    perform filestore.check_mount_settings('access_policy', new.access_policy);
  end if;
  if new.credentials_ref is distinct from old.credentials_ref then
    perform filestore.check_mount_settings('credentials_ref', to_jsonb(new.credentials_ref));
  end if;
  if new.labels is distinct from old.labels then
    perform filestore.check_mount_settings('labels', new.labels);
  end if;
  -- Not state_reason: no text of a failure may keep a service from writing a state.
  if (new.endpoint, new.display_name, new.description, new.contact)
     is distinct from (old.endpoint, old.display_name, old.description, old.contact) then
    perform filestore.check_mount_settings('endpoint', to_jsonb(new.endpoint));
    perform filestore.check_mount_settings('display_name', to_jsonb(new.display_name));
    perform filestore.check_mount_settings('description', to_jsonb(new.description));
    perform filestore.check_mount_settings('contact', to_jsonb(new.contact));
  end if;
  if new.mount_key is distinct from old.mount_key and exists (
    select
    from filestore.moves m
    where m.mount_key = new.mount_key
      and m.mount_id <> new.id
      and m.written_by = m.target_number
      and m.finished_at is null
  ) then
    raise exception 'mount "%" is moving to this server', new.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_mount_key_key',
            hint       = 'Choose another key.';
  end if;
  if tg_op = 'INSERT' then
    return new;
  end if;

  if new.id is distinct from old.id
     or new.backend_kind is distinct from old.backend_kind
     or new.created_at is distinct from old.created_at then
    raise exception 'mount "%" cannot change its id, backend_kind or created_at', old.mount_key
      using errcode    = 'FS422',
            constraint = 'backend_mounts_fixed_check',
            hint       = 'Register another mount instead.';
  end if;

  if new.erasing_since is not null and new.state = 'active' and old.state <> 'active' then
    raise exception 'mount "%" is being erased (since %)', old.mount_key, new.erasing_since
      using errcode    = 'FS409',
            constraint = 'backend_mounts_erasing',
            hint       = 'Register another mount.';
  end if;

  if (new.mount_key, new.root_path, new.endpoint, new.bucket, new.prefix)
     is distinct from (old.mount_key, old.root_path, old.endpoint, old.bucket, old.prefix) then
    if old.held_by is not null or exists (select from filestore.moves m where m.mount_id = old.id and m.finished_at is null) then
      raise exception 'mount "%" keeps its key and place while it moves to another server', old.mount_key
        using errcode    = 'FS409',
              constraint = 'backend_mounts_moving',
              hint       = 'Repeat the change on the new server when filestore.view_filestore_mount_moves there says that the move is finished.';
    end if;
  end if;

  -- The whole row is compared, so that new columns are included.
  new.version    := old.version;
  new.updated_at := old.updated_at;
  if new *<> old
     and (coalesce(current_setting('filestore.backfill_id', true), '') = '' or not filestore.is_backfill(to_jsonb(old), to_jsonb(new))) then
    new.version    := old.version + 1;
    new.updated_at := greatest(date_trunc('milliseconds', statement_timestamp()), old.updated_at + interval '1 millisecond');
  end if;
  if given_version is distinct from old.version and given_version is distinct from new.version then
    perform filestore.refuse_version(format('mount "%s"', old.mount_key), old.version, given_version);
  end if;
  return new;
end
$$;

comment on function filestore.prepare_mount() is
  'Refuses a secret in a mount''s settings, and the key of a mount that is moving to this server. Refuses to change the id, backend_kind or created_at of a mount, its key or place while it moves to another server, and its state to active while it is erased. Increments the version at every other change.';

revoke all on function filestore.prepare_mount() from public;
--! EndIncluded functions/prepare_mount.sql
--! Included functions/lock_tree.sql
create or replace function filestore.lock_tree(mount_id bigint, exclusive boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if mount_id is null or exclusive is null then
    raise exception '% of filestore.lock_tree is null', case when mount_id is null then 'mount_id' else 'exclusive' end
      using errcode    = 'FS422',
            constraint = 'tree_lock_check',
            hint       = 'Give the id of a mount, and whether the lock is exclusive.';
  elsif exclusive then
    perform pg_advisory_xact_lock(hashtextextended('filestore.tree', mount_id));
  else
    perform pg_advisory_xact_lock_shared(hashtextextended('filestore.tree', mount_id));
  end if;
end
$$;

comment on function filestore.lock_tree(bigint, boolean) is
  'Locks the shape of a mount''s tree until the transaction ends. Take it before any row of the mount, and never shared first and then exclusive. Exclusive: to move or rename directories, delete or restore trees, purge. Shared: to fold totals, move a file, restore one node, record first sightings or those of tombstones, create in several existing directories, or write several existing rows, which must be done in order of id. No other operation needs it.';

revoke all on function filestore.lock_tree(bigint, boolean) from public;
--! EndIncluded functions/lock_tree.sql
--! Included functions/lock_trees.sql
create or replace function filestore.lock_trees(mount_ids bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint;
begin
  -- All transactions of the server share its table of locks.
  if cardinality(mount_ids) > 100 then
    raise exception 'the call concerns % mounts, which are too many', cardinality(mount_ids)
      using errcode    = 'FS422',
            constraint = 'mount_ids_check',
            hint       = 'Give nodes of at most 100 mounts in one call, such as those of one mount, and commit after each call.';
  end if;
  for mount_id in
    select m.id
    from unnest(mount_ids) as m (id)
    order by m.id
  loop
    perform filestore.lock_tree(mount_id, false);
  end loop;
end
$$;

comment on function filestore.lock_trees(bigint[]) is
  'Internal: Takes the shared tree locks of at most 100 mounts, in order of id. FS422 for more, since each lock takes a place in the table of locks of the whole server.';

revoke all on function filestore.lock_trees(bigint[]) from public;
--! EndIncluded functions/lock_trees.sql
--! Included functions/require_read_committed.sql
create or replace function filestore.require_read_committed(action text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- After waiting for a lock, a function must see rows that were committed during the wait. At other isolation levels,
  -- the snapshot is older.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception '% is not possible in a transaction with isolation level %', action, current_setting('transaction_isolation')
      using errcode    = 'FS409',
            constraint = 'read_committed_check',
            hint       = 'Use a READ COMMITTED transaction.';
  end if;
end
$$;

comment on function filestore.require_read_committed(text) is
  'Internal: Raises FS409 in a transaction that is not READ COMMITTED: its snapshot would be older than the locks that it takes.';

revoke all on function filestore.require_read_committed(text) from public;
--! EndIncluded functions/require_read_committed.sql

--! Included triggers/backend_mounts_prepare.sql
drop trigger if exists backend_mounts_prepare on filestore.backend_mounts;

create trigger backend_mounts_prepare
  before insert or update on filestore.backend_mounts
  for each row
  execute function filestore.prepare_mount();

comment on trigger backend_mounts_prepare on filestore.backend_mounts is
  'Refuses secrets and changes of a mount''s identity, and increments its version.';
--! EndIncluded triggers/backend_mounts_prepare.sql
--! Included triggers/backend_mounts_refuse_truncate.sql
drop trigger if exists backend_mounts_refuse_truncate on filestore.backend_mounts;

create trigger backend_mounts_refuse_truncate
  before truncate on filestore.backend_mounts
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger backend_mounts_refuse_truncate on filestore.backend_mounts is
  'Refuses truncate, which would bypass the triggers that guard rows.';
--! EndIncluded triggers/backend_mounts_refuse_truncate.sql
