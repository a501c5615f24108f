-- Finds the number that a request is about, what we know about it, and its session's snapshot. Each function that PostgREST serves
-- takes an organization, or a verified user of one. It reads and writes only that organization's rows; take_over_snapshot is the one
-- exception. The organization's users can write its rows of messenger_integrations, so each value is checked when it is read.

set lock_timeout = '5s';

-- One row per number, for everything that has no column in messenger_integrations. `platform_id` is the id that we last asked the
-- platform with, under WPP_SECRET, and `session` is what it gave for that. credentials_saved_at and first_connected_at are about
-- that session. webhook_session may be another one, which the other functions have saved in the settings.
create table if not exists public.wpp_numbers (
  integration_id uuid,
  organization_id uuid,
  session text,
  platform_id text check (platform_id = organization_id::text or platform_id ~ ('^' || organization_id || '__wpp__[0-9a-f]{8}$')),
  credentials_saved_at timestamptz,
  first_connected_at timestamptz,
  webhook_session text,
  webhook_url text,
  webhook_tried_at timestamptz,
  -- The key includes the organization, so a number that moves to another organization starts over.
  primary key (integration_id, organization_id)
);
create index if not exists wpp_numbers_by_organization on public.wpp_numbers (organization_id);
create index if not exists wpp_numbers_by_session on public.wpp_numbers (session);
alter table public.wpp_numbers enable row level security;

-- Helpers, in a schema that PostgREST does not serve and only service_role may use. Single-expression helpers that read no table
-- have SQL-standard bodies and no `set search_path`, so that PostgreSQL can inline them. Helpers that read a shared table have a
-- text body: a SQL-standard body would be a dependency that stops the owner from changing the table.
create schema if not exists wpp_internal;
grant usage on schema wpp_internal to service_role;

-- A time further in the future than this was set by a wrong clock, and is ignored.
create or replace function wpp_internal.max_clock_skew() returns interval
language sql immutable return interval '1 minute';

-- How long to remember a creation, a rejected API key, and an added number that was never linked.
create or replace function wpp_internal.memory_ttl() returns interval
language sql immutable return interval '24 hours';

-- How many new platform ids an organization may use per hour.
create or replace function wpp_internal.new_platform_ids_per_hour() returns integer
language sql immutable return 30;

-- Milliseconds since 1970 by the database's clock, which all sandboxes share.
create or replace function wpp_internal.now_ms() returns bigint
language sql volatile
return floor(extract(epoch from clock_timestamp()) * 1000)::bigint;

-- Milliseconds since 1970; null for `infinity`.
create or replace function wpp_internal.unix_ms(at timestamptz) returns bigint
language sql stable
return case when isfinite(at) then floor(extract(epoch from at) * 1000)::bigint end;

-- Returns the answer of a function that has more than one outcome: the outcome, the time, and `more`.
create or replace function wpp_internal.answer(outcome text, more jsonb default '{}') returns jsonb
language sql volatile
return jsonb_build_object('now_ms', wpp_internal.now_ms(), 'outcome', outcome) || more;

-- Returns the object in a JSON text; null if the text holds no object.
create or replace function wpp_internal.object_in(p_text text) returns jsonb
language plpgsql immutable set search_path = ''
as $$
begin
  return case when jsonb_typeof(p_text::jsonb) = 'object' then p_text::jsonb end;
exception
  when others then return null;
end
$$;

-- Returns a row's settings as an object. Some writers store them as a JSON string, which is parsed. Null if they cannot be read.
create or replace function wpp_internal.settings(settings jsonb) returns jsonb
language sql immutable
return case coalesce(jsonb_typeof(settings), 'null')
  when 'object' then settings
  when 'null' then '{}'
  when 'string' then wpp_internal.object_in(settings #>> '{}')
end;

-- Returns a JSON text, trimmed. Null if it is not a text, is empty, is longer than `longest` bytes, or has control characters.
create or replace function wpp_internal.plain_text(value jsonb, longest integer) returns text
language sql immutable
return case
  when jsonb_typeof(value) = 'string' and octet_length(btrim(value #>> '{}', E' \t\n\r')) between 1 and longest
    and btrim(value #>> '{}', E' \t\n\r') !~ '[[:cntrl:]]'
  then btrim(value #>> '{}', E' \t\n\r') end;

-- Returns the API key in a number's settings. Every read, comparison and digest of the API key goes through this function.
create or replace function wpp_internal.api_key(settings jsonb) returns text
language sql immutable
return wpp_internal.plain_text(settings -> 'wppApiKey', 512);

-- Returns the token in a number's settings.
create or replace function wpp_internal.token(settings jsonb) returns text
language sql immutable
return wpp_internal.plain_text(settings -> 'wppJwtToken', 8192);

-- Returns the session in a number's settings. Null unless it is safe in the path of a URL.
create or replace function wpp_internal.session(settings jsonb) returns text
language sql immutable
return case
  when jsonb_typeof(settings -> 'wppAccountNumber') = 'string' and settings ->> 'wppAccountNumber' ~ '^[A-Za-z0-9._@:+-]{1,128}$'
    and settings ->> 'wppAccountNumber' not in ('.', '..')
  then settings ->> 'wppAccountNumber' end;

-- Whether a platform id belongs to an organization: it is the organization's id, with or without the functions' suffix.
create or replace function wpp_internal.is_own_platform_id(organization_id uuid, platform_id text) returns boolean
language sql immutable
return platform_id = organization_id::text or platform_id ~ ('^' || organization_id::text || '__wpp__[0-9a-f]{8}$');

-- Whether a session was connected when it was last seen.
create or replace function wpp_internal.is_connected(p_organization_id uuid, p_session text) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return exists (
    select from public.whatsapp_sessions s
    where s.session_name = 'wpp_' || p_session and s.organization_id = p_organization_id and s.status = 'connected');
end
$$;

-- Returns an organization's numbers, with checked settings. `never_linked`: the platform gave the row's session, the functions
-- saved its credentials, and it was never seen connected. Every other number counts as linked.
create or replace function wpp_internal.numbers(p_organization_id uuid)
returns table (id uuid, is_active boolean, is_primary boolean, created_at timestamptz, settings jsonb, api_key text, session text,
  is_usable boolean, never_linked boolean, platform_id text, saved_at timestamptz)
language sql stable
as $$
  select i.id, i.is_active, i.is_primary, i.created_at, o.settings, wpp_internal.api_key(o.settings), wpp_internal.session(o.settings),
    coalesce(i.is_active and wpp_internal.api_key(o.settings) is not null and wpp_internal.session(o.settings) is not null, false),
    coalesce(n.session = wpp_internal.session(o.settings) and n.credentials_saved_at is not null and n.first_connected_at is null
      and not wpp_internal.is_connected(i.organization_id, n.session), false),
    n.platform_id, n.credentials_saved_at
  from public.messenger_integrations i
  cross join lateral (select wpp_internal.settings(i.settings) as settings offset 0) o
  left join public.wpp_numbers n on n.integration_id = i.id and n.organization_id = i.organization_id
  where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp' and i.provider = 'wpp'
$$;

-- Whether the organization has a usable primary WhatsApp row. With `p_linked`, a row that was never linked does not count. Another
-- provider's row counts if it is active and enabled.
create or replace function wpp_internal.has_usable_primary(p_organization_id uuid, p_linked boolean) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return exists (
      select from wpp_internal.numbers(p_organization_id) n
      where n.is_primary and n.is_usable and not (p_linked and n.never_linked))
    or exists (
      select from public.messenger_integrations i
      where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp' and i.provider <> 'wpp' and i.is_primary
        and i.is_active and coalesce((to_jsonb(i) ->> 'is_enabled')::boolean, true));
end
$$;

-- Returns a session's row of whatsapp_sessions, or null. An implausibly long QR becomes null.
create or replace function wpp_internal.snapshot(p_organization_id uuid, p_session text) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select jsonb_build_object(
      'status', coalesce(left(s.status::text, 64), ''),
      'qr', case when octet_length(s.last_qr_b64) <= 65536 then s.last_qr_b64 end,
      'qr_at_ms', wpp_internal.unix_ms(s.last_qr_at),
      'at_ms', coalesce(wpp_internal.unix_ms(s.updated_at), 0))
    from public.whatsapp_sessions s
    where s.session_name = 'wpp_' || p_session and s.organization_id = p_organization_id);
end
$$;

-- Returns a number as the functions use it: the row's ids and name, its checked settings, what wpp_numbers has of it, and its
-- snapshot. `ignored` lists the settings that are present but invalid. `newly_connected`: if the platform says `connected`, that must
-- be saved, since the snapshot, first_connected_at or the primary number would change.
create or replace function wpp_internal.number(p_integration_id uuid) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select jsonb_build_object(
      'integration_id', i.id,
      'organization_id', i.organization_id,
      'name', left(i.name, 200),
      'is_readable', k.settings is not null,
      'settings', jsonb_strip_nulls(jsonb_build_object(
        'wppApiKey', k.api_key, 'wppAccountNumber', k.session, 'wppJwtToken', k.token,
        'wppJwtExpiresAt', case when jsonb_typeof(k.settings -> 'wppJwtExpiresAt') in ('number', 'string')
          and octet_length(k.settings ->> 'wppJwtExpiresAt') <= 32 then k.settings -> 'wppJwtExpiresAt' end)),
      'ignored', array_remove(array[
        case when k.api_key is null and k.settings ->> 'wppApiKey' <> '' then 'wppApiKey' end,
        case when k.session is null and k.settings ->> 'wppAccountNumber' <> '' then 'wppAccountNumber' end,
        case when k.token is null and k.settings ->> 'wppJwtToken' <> '' then 'wppJwtToken' end], null),
      'credentials_saved_at_ms', case when n.session = k.session then wpp_internal.unix_ms(n.credentials_saved_at) end,
      'first_connected_at_ms', case when n.session = k.session then wpp_internal.unix_ms(n.first_connected_at) end,
      'webhook_url', case when n.webhook_session = k.session then n.webhook_url end,
      'newly_connected', k.snapshot ->> 'status' is distinct from 'connected'
        or coalesce(n.session = k.session and n.first_connected_at is null, false)
        or not wpp_internal.has_usable_primary(i.organization_id, true),
      'snapshot', k.snapshot)
    from public.messenger_integrations i
    cross join lateral (select wpp_internal.settings(i.settings) as settings offset 0) o
    -- The offset makes PostgreSQL compute each value only once.
    cross join lateral (
      select o.settings, wpp_internal.api_key(o.settings) as api_key, wpp_internal.session(o.settings) as session,
        wpp_internal.token(o.settings) as token,
        wpp_internal.snapshot(i.organization_id, wpp_internal.session(o.settings)) as snapshot
      offset 0) k
    left join public.wpp_numbers n on n.integration_id = i.id and n.organization_id = i.organization_id
    where i.id = p_integration_id);
end
$$;

-- Returns the number that a request names by its session, or otherwise by its row; without either, any of the organization's. Of
-- several, it is a usable one before others, then the primary one, then the oldest. A session may have the `wpp_` prefix.
create or replace function wpp_internal.choose_number(
  p_organization_id uuid, p_session text, p_integration_id uuid, p_active_only boolean)
returns uuid
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select n.id
    from wpp_internal.numbers(p_organization_id) n
    where (n.is_active or not p_active_only) and case
      when p_session is not null then p_session in (n.session, 'wpp_' || n.session)
      else p_integration_id is null or n.id = p_integration_id end
    order by n.is_usable desc, n.is_primary desc nulls last, n.created_at, n.id
    limit 1);
end
$$;

-- Returns the active number that a user's request names, see choose_number. Called by Store::find.
-- Answers {now_ms, organization_id | null, number | null}.
create or replace function public.wpp_find_number(
  p_user_id uuid, p_session text default null, p_integration_id uuid default null)
returns jsonb
language plpgsql stable set search_path = ''
as $$
declare
  v_organization uuid;
begin
  select p.organization_id into v_organization from public.profiles p where p.id = p_user_id;
  return jsonb_build_object(
    'now_ms', wpp_internal.now_ms(),
    'organization_id', v_organization,
    'number', wpp_internal.number(wpp_internal.choose_number(v_organization, p_session, p_integration_id, true)));
end
$$;

-- If the organization has no usable primary row, makes its best number primary: the one just seen connected (`p_session`), otherwise
-- one that is connected in its snapshot, then one that was ever linked, then the oldest. A usable primary number that was never
-- linked gives way only to one that was. Does not wait for locked rows: the next creation or connection tries again.
create or replace function wpp_internal.settle_primary(p_organization_id uuid, p_session text default null) returns void
language plpgsql set search_path = ''
as $$
declare
  v_locked uuid[];
  v_best record;
begin
  if wpp_internal.has_usable_primary(p_organization_id, true) then
    return;
  end if;
  v_locked := array(
    select i.id from public.messenger_integrations i
    where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp'
    for no key update nowait);
  select n.id, n.never_linked into v_best
  from wpp_internal.numbers(p_organization_id) n
  where n.id = any (v_locked) and n.is_usable
  order by n.session = p_session desc, wpp_internal.is_connected(p_organization_id, n.session) desc,
    n.never_linked, n.created_at, n.id
  limit 1;
  if v_best.id is null or wpp_internal.has_usable_primary(p_organization_id, not v_best.never_linked) then
    return;
  end if;
  update public.messenger_integrations i
  set is_primary = false, updated_at = clock_timestamp()
  where i.id = any (v_locked) and i.is_primary;
  update public.messenger_integrations i
  set is_primary = true, updated_at = clock_timestamp()
  where i.id = v_best.id;
exception
  when lock_not_available or unique_violation then
    return;
end
$$;

-- Takes over another organization's row of whatsapp_sessions for a session that the platform gave to this organization, and empties
-- it. Deletes the row instead if the table allows only one row per organization. If a foreign key forbids this, leaves the row and
-- logs a warning. Returns the row's organization afterwards, or null if there is no row.
create or replace function wpp_internal.take_over_snapshot(p_organization_id uuid, p_session text) returns uuid
language plpgsql set search_path = ''
as $$
declare
  v_owner uuid;
  v_empty public.whatsapp_sessions := jsonb_populate_record(null::public.whatsapp_sessions, '{"status": "disconnected"}');
begin
  select s.organization_id into v_owner from public.whatsapp_sessions s where s.session_name = 'wpp_' || p_session;
  if v_owner is null or v_owner = p_organization_id then
    return v_owner;
  end if;
  begin
    update public.whatsapp_sessions s
    set organization_id = p_organization_id, status = v_empty.status, last_qr_b64 = null, last_qr_at = null, updated_at = now()
    where s.session_name = 'wpp_' || p_session and s.organization_id = v_owner;
    return p_organization_id;
  exception
    when unique_violation then
      delete from public.whatsapp_sessions s where s.session_name = 'wpp_' || p_session and s.organization_id = v_owner;
      return null;
  end;
exception
  when foreign_key_violation or lock_not_available then
    raise warning 'a session''s snapshot belongs to another organization, and could not be taken over: %', sqlerrm;
    return v_owner;
end
$$;

-- Saves the state of a session, observed at `p_at_ms` or later, as its snapshot. A newer snapshot wins, so that a slow poll does
-- not undo the webhook's report, unless its time is too far in the future. Without `p_may_insert`, a session without a row gets
-- none. If the table has UNIQUE (organization_id), its only row is moved to this session, unless it belongs to an
-- active number's session. Called by Store::save_snapshot. Returns the snapshot afterwards (see `snapshot`); null if the
-- organization has no such number, or the table has no room for it. Its lock timeout is shorter than PostgreSQL's deadlock_timeout,
-- so that it is never part of a deadlock with an upsert.
create or replace function public.wpp_save_snapshot(
  p_organization_id uuid, p_session text, p_status text, p_at_ms bigint, p_qr text default null, p_may_insert boolean default true)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '800ms'
as $$
declare
  -- jsonb_populate_record converts each value to its column's type.
  v_seen public.whatsapp_sessions := jsonb_populate_record(null::public.whatsapp_sessions, jsonb_build_object(
    'organization_id', p_organization_id, 'session_name', 'wpp_' || p_session, 'status', p_status, 'last_qr_b64', p_qr,
    'updated_at', clock_timestamp(), 'last_qr_at', case when p_qr is not null then clock_timestamp() end));
  v_owner uuid;
  v_is_taken_over boolean := false;
  -- Read before the update overwrites it: the other functions may have saved `connected`.
  v_was_connected boolean := p_status = 'connected' or wpp_internal.is_connected(p_organization_id, p_session);
begin
  if not exists (select from wpp_internal.numbers(p_organization_id) n where n.session = p_session) then
    return null;
  end if;

  select s.organization_id into v_owner from public.whatsapp_sessions s where s.session_name = v_seen.session_name;
  if v_owner <> p_organization_id and exists (
    select from public.wpp_numbers n
    join wpp_internal.numbers(p_organization_id) k on k.id = n.integration_id and k.session = n.session
    where n.organization_id = p_organization_id and n.session = p_session)
  then
    v_owner := wpp_internal.take_over_snapshot(p_organization_id, p_session);
    v_is_taken_over := true;
  end if;
  if v_owner is null and p_may_insert then
    insert into public.whatsapp_sessions (organization_id, session_name, status, last_qr_b64, last_qr_at, updated_at)
    values (v_seen.organization_id, v_seen.session_name, v_seen.status, v_seen.last_qr_b64, v_seen.last_qr_at, v_seen.updated_at)
    on conflict do nothing;
    if not found then
      update public.whatsapp_sessions s
      set session_name = v_seen.session_name, status = v_seen.status,
          last_qr_b64 = v_seen.last_qr_b64, last_qr_at = v_seen.last_qr_at, updated_at = v_seen.updated_at
      where s.organization_id = p_organization_id
        and not exists (
          select from wpp_internal.numbers(p_organization_id) n where n.is_active and s.session_name = 'wpp_' || n.session);
    end if;
  end if;
  update public.whatsapp_sessions s
  set status = v_seen.status,
      -- The time of a QR is when it was first seen, and an equal image is not written again.
      last_qr_at = case when s.last_qr_b64 = v_seen.last_qr_b64 then s.last_qr_at else v_seen.last_qr_at end,
      last_qr_b64 = case when s.last_qr_b64 = v_seen.last_qr_b64 then s.last_qr_b64 else v_seen.last_qr_b64 end,
      updated_at = v_seen.updated_at
  where v_owner = p_organization_id and s.organization_id = p_organization_id and s.session_name = v_seen.session_name
    and (v_is_taken_over or (date_trunc('milliseconds', s.updated_at) > to_timestamp(p_at_ms / 1000.0)
      and s.updated_at <= clock_timestamp() + wpp_internal.max_clock_skew()) is not true);

  if v_was_connected then
    update public.wpp_numbers n
    set first_connected_at = clock_timestamp()
    where n.organization_id = p_organization_id and n.session = p_session and n.first_connected_at is null;
  end if;
  if p_status = 'connected' then
    perform wpp_internal.settle_primary(p_organization_id, p_session);
  end if;
  return wpp_internal.snapshot(p_organization_id, p_session);
exception
  -- Another transaction holds the row and saves its own state. This request can answer without saving.
  when lock_not_available or unique_violation then
    return wpp_internal.snapshot(p_organization_id, p_session);
end
$$;

-- Claims the right to register a number's webhook again. At most one request per `p_every_ms` gets it. False if the organization
-- has no such number. Called by Store::claim_webhook.
create or replace function public.wpp_claim_webhook(
  p_organization_id uuid, p_integration_id uuid, p_every_ms integer)
returns boolean
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
begin
  insert into public.wpp_numbers as n (integration_id, organization_id, webhook_tried_at)
  select i.id, i.organization_id, clock_timestamp()
  from public.messenger_integrations i
  where i.id = p_integration_id and i.organization_id = p_organization_id
  on conflict (integration_id, organization_id) do update
  set webhook_tried_at = excluded.webhook_tried_at
  where (n.webhook_tried_at between clock_timestamp() - p_every_ms * interval '1 millisecond'
    and clock_timestamp() + wpp_internal.max_clock_skew()) is not true;
  return found;
end
$$;

-- Saves that the webhook of a number's session is registered at `p_url` (null: it is not registered). Called by Store::save_webhook.
create or replace function public.wpp_save_webhook(
  p_organization_id uuid, p_integration_id uuid, p_session text, p_url text)
returns void
language sql volatile set search_path = '' set lock_timeout = '2s'
as $$
  insert into public.wpp_numbers (integration_id, organization_id, webhook_session, webhook_url)
  select i.id, i.organization_id, p_session, p_url
  from public.messenger_integrations i
  where i.id = p_integration_id and i.organization_id = p_organization_id
  on conflict (integration_id, organization_id) do update
  set webhook_session = excluded.webhook_session, webhook_url = excluded.webhook_url
$$;

revoke all on table public.wpp_numbers from public, anon, authenticated;
grant select, insert, update, delete on table public.wpp_numbers to service_role;
revoke all on all functions in schema wpp_internal from public, anon, authenticated;
grant execute on all functions in schema wpp_internal to service_role;
revoke all on function
  public.wpp_find_number, public.wpp_save_snapshot, public.wpp_claim_webhook, public.wpp_save_webhook
  from public, anon, authenticated;
grant execute on function
  public.wpp_find_number, public.wpp_save_snapshot, public.wpp_claim_webhook, public.wpp_save_webhook
  to service_role;

notify pgrst, 'reload schema';
reset lock_timeout;
