-- Which number a request is about, what we know of it, and what was last seen of its session.
-- Every function that is called from outside takes the organisation (or the verified user it follows from) and touches that
-- organisation's rows only.

set lock_timeout = '5s';

-- What the shared row has no room for. `saved_digest` tells whether the row still holds the credentials that were saved last,
-- `replaced_digest` whether a sibling has written those back that were there before. The webhook has a digest of its own,
-- since it is also registered for credentials that others have saved.
create table if not exists public.wpp_numbers (
  integration_id uuid primary key,
  organization_id uuid not null,
  saved_digest text,
  replaced_digest text,
  credentials_saved_at timestamptz,
  first_connected_at timestamptz,
  webhook_digest text,
  webhook_url text,
  webhook_tried_at timestamptz
);
create index if not exists wpp_numbers_by_organization on public.wpp_numbers (organization_id);
alter table public.wpp_numbers enable row level security;

-- Our helpers, in a schema that PostgREST does not serve and nobody else may enter. Those that are one expression and read no
-- table have no `set search_path`, so that they are inlined; their names were bound when they were made. The others are text:
-- so the owner of a shared table may change it without being told that functions depend on it.
create schema if not exists wpp_internal;
grant usage on schema wpp_internal to service_role;

-- Milliseconds since 1970 by the database's clock: the one clock that every sandbox shares.
create or replace function wpp_internal.now_ms() returns bigint
language sql volatile
return floor(extract(epoch from clock_timestamp()) * 1000)::bigint;

-- Null for a moment that is none, such as `infinity`.
create or replace function wpp_internal.unix_ms(at timestamptz) returns bigint
language sql immutable
return case when isfinite(at) then floor(extract(epoch from at) * 1000)::bigint end;

-- What a function that decides something answers: its outcome, when that was, and what belongs to it.
create or replace function wpp_internal.answer(outcome text, more jsonb default '{}') returns jsonb
language sql volatile
return jsonb_build_object('now_ms', wpp_internal.now_ms(), 'outcome', outcome) || more;

-- A row's settings: an object, also where the column holds nothing or something else.
create or replace function wpp_internal.settings(settings jsonb) returns jsonb
language sql immutable
return case when jsonb_typeof(settings) = 'object' then settings else '{}' end;

-- Whether settings hold an API key and a session.
create or replace function wpp_internal.has_credentials(settings jsonb) returns boolean
language sql immutable
return coalesce(
  jsonb_typeof(settings -> 'wppApiKey') = 'string' and settings ->> 'wppApiKey' <> ''
  and jsonb_typeof(settings -> 'wppAccountNumber') = 'string' and settings ->> 'wppAccountNumber' <> '', false);

-- Whether a row of ours is a number that works: active, and with credentials.
create or replace function wpp_internal.works(is_active boolean, settings jsonb) returns boolean
language sql immutable
return coalesce(is_active and wpp_internal.has_credentials(settings), false);

-- Tells one pair of API key and session from another.
create or replace function wpp_internal.credentials_digest(settings jsonb) returns text
language sql immutable
return md5(jsonb_build_array(settings -> 'wppApiKey', settings -> 'wppAccountNumber')::text);

-- Whose credentials a number's row holds: `saved`, those that we have saved last; `replaced`, those before them, which a sibling
-- has written back; null, others.
create or replace function wpp_internal.credentials_origin(p_integration_id uuid) returns text
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select case wpp_internal.credentials_digest(i.settings)
      when n.saved_digest then 'saved' when n.replaced_digest then 'replaced' end
    from public.messenger_integrations i
    join public.wpp_numbers n on n.integration_id = i.id
    where i.id = p_integration_id);
end
$$;

-- Whether a session was connected when somebody looked last.
create or replace function wpp_internal.is_connected(p_organization_id uuid, p_session text) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return exists (
    select from public.whatsapp_sessions s
    where s.session_name = 'wpp_' || p_session and s.organization_id = p_organization_id and s.status = 'connected');
end
$$;

-- Whether a phone was ever linked with a number's present credentials, as far as we know: false only where we saved them
-- ourselves and nobody has seen the session connected.
create or replace function wpp_internal.was_linked(p_integration_id uuid) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return not exists (
    select from public.wpp_numbers n
    join public.messenger_integrations i on i.id = n.integration_id
    where n.integration_id = p_integration_id and n.first_connected_at is null
      and n.saved_digest = wpp_internal.credentials_digest(i.settings)
      and not wpp_internal.is_connected(i.organization_id, i.settings ->> 'wppAccountNumber'));
end
$$;

-- Whether one of the organisation's WhatsApp rows that work is primary. A number works for this where, with `p_linked`, a phone
-- was linked, too; of another provider's row we know only that it is active and enabled.
create or replace function wpp_internal.primary_works(p_organization_id uuid, p_linked boolean) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return exists (
    select from public.messenger_integrations i
    where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp' and i.is_primary
      and case when i.provider = 'wpp'
        then wpp_internal.works(i.is_active, i.settings) and (not p_linked or wpp_internal.was_linked(i.id))
        else i.is_active and coalesce((to_jsonb(i) ->> 'is_enabled')::boolean, true) end);
end
$$;

-- A number as the functions see it: the row's identity, those of its settings that are ours, what we know of it, and the
-- mirror of its session. `news_if_connected` is whether seeing it connected would change anything that is kept.
create or replace function wpp_internal.number(p_integration_id uuid) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select jsonb_build_object(
      'integration_id', i.id,
      'organization_id', i.organization_id,
      'settings', jsonb_strip_nulls(jsonb_build_object(
        'wppApiKey', o.settings -> 'wppApiKey', 'wppAccountNumber', o.settings -> 'wppAccountNumber',
        'wppJwtToken', o.settings -> 'wppJwtToken', 'wppJwtExpiresAt', o.settings -> 'wppJwtExpiresAt')),
      'credentials_saved_at_ms', case when n.saved_digest = k.digest then wpp_internal.unix_ms(n.credentials_saved_at) end,
      'first_connected_at_ms', case when n.saved_digest = k.digest then wpp_internal.unix_ms(n.first_connected_at) end,
      'webhook_url', case when n.webhook_digest = k.digest then n.webhook_url end,
      'news_if_connected', case
        when k.mirror ->> 'status' is distinct from 'connected' then true
        when n.saved_digest = k.digest and n.first_connected_at is null then true
        else not wpp_internal.primary_works(i.organization_id, true) end,
      'snapshot', k.mirror)
    from public.messenger_integrations i
    cross join lateral (select wpp_internal.settings(i.settings) as settings) o
    -- The offset has both worked out once.
    cross join lateral (
      select wpp_internal.credentials_digest(o.settings) as digest,
        wpp_internal.mirror(i.organization_id, o.settings ->> 'wppAccountNumber') as mirror
      offset 0) k
    left join public.wpp_numbers n on n.integration_id = i.id
    where i.id = p_integration_id);
end
$$;

-- What `whatsapp_sessions` holds of a session; null where it holds nothing.
create or replace function wpp_internal.mirror(p_organization_id uuid, p_session text) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select jsonb_build_object(
      'status', coalesce(s.status::text, ''),
      'qr', s.last_qr_b64,
      'qr_at_ms', wpp_internal.unix_ms(s.last_qr_at),
      'at_ms', coalesce(wpp_internal.unix_ms(s.updated_at), 0))
    from public.whatsapp_sessions s
    where s.session_name = 'wpp_' || p_session and s.organization_id = p_organization_id);
end
$$;

-- The number that is meant: the named session, else the named row, else the organisation's choice: one that is active and has
-- credentials, the primary first, and where several are primary the oldest of them. A session may be named as the platform
-- does or as whatsapp_sessions does.
create or replace function wpp_internal.choose_number(
  p_organization_id uuid, p_session text, p_integration_id uuid, p_active_only boolean)
returns uuid
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select i.id
    from public.messenger_integrations i
    where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp' and i.provider = 'wpp'
      and (i.is_active or not p_active_only)
      and case
        when p_session is not null
          then p_session in (i.settings ->> 'wppAccountNumber', 'wpp_' || (i.settings ->> 'wppAccountNumber'))
        else p_integration_id is null or i.id = p_integration_id end
    order by wpp_internal.works(i.is_active, i.settings) desc,
      i.is_primary desc nulls last, i.created_at, i.id
    limit 1);
end
$$;

-- The active number that a user means, see choose_number. Called by Store::find.
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

-- Gives the primary mark to the organisation's best number, where none of its WhatsApp rows that work has it: the one that was
-- just seen connected (`p_session`), else one that was seen so last, else one that was linked once, else the oldest. Rows
-- that somebody else holds are not waited for, nor are rows that were made since: the next creation or the next look at a
-- connected number tries again.
create or replace function wpp_internal.settle_primary(p_organization_id uuid, p_session text default null) returns void
language plpgsql set search_path = ''
as $$
declare
  v_locked uuid[];
  v_best uuid;
begin
  if wpp_internal.primary_works(p_organization_id, true) then
    return;
  end if;
  v_locked := array(
    select i.id from public.messenger_integrations i
    where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp'
    order by i.id for no key update nowait);
  select i.id into v_best
  from public.messenger_integrations i
  where i.id = any (v_locked) and i.provider = 'wpp' and wpp_internal.works(i.is_active, i.settings)
  order by coalesce(i.settings ->> 'wppAccountNumber' = p_session, false) desc,
    wpp_internal.is_connected(i.organization_id, i.settings ->> 'wppAccountNumber') desc,
    wpp_internal.was_linked(i.id) desc, i.created_at, i.id
  limit 1;
  if v_best is null or wpp_internal.primary_works(p_organization_id, wpp_internal.was_linked(v_best)) then
    return;
  end if;
  update public.messenger_integrations i
  set is_primary = false, updated_at = clock_timestamp()
  where i.id = any (v_locked) and i.is_primary and i.id <> v_best;
  update public.messenger_integrations i
  set is_primary = true, updated_at = clock_timestamp()
  where i.id = v_best and i.is_primary is not true;
exception
  when lock_not_available or unique_violation then
    return;
end
$$;

-- Mirrors what was seen of a session, at `p_at_ms` or later, into whatsapp_sessions, the whole state at once. A row that was
-- written since stands: a slow poll does not undo what the webhook has told; but not one from a clock that is a minute
-- ahead. Where the table still carries UNIQUE (organization_id), its only row stays with a session that is still one of the
-- organisation's active numbers, and moves on from one that is not. Called by Store::save_snapshot.
-- Answers the mirror as it is now, see mirror; null where the organisation has no such number or the table no room.
create or replace function public.wpp_save_snapshot(
  p_organization_id uuid, p_session text, p_status text, p_at_ms bigint, p_qr text default null)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  -- With the words in the types that the table has for them.
  v_seen public.whatsapp_sessions := jsonb_populate_record(null::public.whatsapp_sessions, jsonb_build_object(
    'session_name', 'wpp_' || p_session, 'status', p_status, 'last_qr_b64', p_qr, 'updated_at', clock_timestamp(),
    'last_qr_at', case when p_qr is not null then clock_timestamp() end));
  v_at timestamptz := to_timestamp(p_at_ms / 1000.0);
  -- What a sibling has seen counts too, and is about to be overwritten.
  v_was_connected boolean := p_status = 'connected' or wpp_internal.is_connected(p_organization_id, p_session);
begin
  if not exists (
    select from public.messenger_integrations i
    where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp' and i.provider = 'wpp'
      and i.settings ->> 'wppAccountNumber' = p_session
  ) then
    return null;
  end if;

  begin
    insert into public.whatsapp_sessions as s
      (organization_id, session_name, status, last_qr_b64, last_qr_at, updated_at)
    values (p_organization_id, v_seen.session_name, v_seen.status, v_seen.last_qr_b64, v_seen.last_qr_at, v_seen.updated_at)
    on conflict (session_name) do update
    set status = excluded.status,
        last_qr_at = case when s.last_qr_b64 = excluded.last_qr_b64 then s.last_qr_at else excluded.last_qr_at end,
        -- An image that is the same is not written again.
        last_qr_b64 = case when s.last_qr_b64 = excluded.last_qr_b64 then s.last_qr_b64 else excluded.last_qr_b64 end,
        updated_at = excluded.updated_at
    where s.organization_id = p_organization_id
      and (s.updated_at between v_at and clock_timestamp() + interval '1 minute') is not true;
  exception
    when unique_violation then
      update public.whatsapp_sessions s
      set session_name = v_seen.session_name, status = v_seen.status,
          last_qr_b64 = v_seen.last_qr_b64, last_qr_at = v_seen.last_qr_at, updated_at = v_seen.updated_at
      where s.organization_id = p_organization_id and not exists (
        select from public.messenger_integrations i
        where i.organization_id = p_organization_id and i.is_active
          and s.session_name = 'wpp_' || (i.settings ->> 'wppAccountNumber'));
  end;

  if v_was_connected then
    update public.wpp_numbers n
    set first_connected_at = clock_timestamp()
    from public.messenger_integrations i
    where n.organization_id = p_organization_id and n.first_connected_at is null
      and i.id = n.integration_id and i.settings ->> 'wppAccountNumber' = p_session
      and n.saved_digest = wpp_internal.credentials_digest(i.settings);
  end if;
  if p_status = 'connected' then
    perform wpp_internal.settle_primary(p_organization_id, p_session);
  end if;
  return wpp_internal.mirror(p_organization_id, p_session);
end
$$;

-- Asks for the right to register a number's webhook once more: once in `p_every_ms` for everybody. False too where the
-- organisation has no such number. Called by Store::claim_webhook.
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
  on conflict (integration_id) do update
  set organization_id = excluded.organization_id, webhook_tried_at = excluded.webhook_tried_at
  where (n.webhook_tried_at between clock_timestamp() - p_every_ms * interval '1 millisecond'
    and clock_timestamp() + interval '1 minute') is not true;
  return found;
end
$$;

-- Notes that a number's webhook is registered at `p_url` (null: that it is not), for the session and key that it was registered
-- with: if the row has got others meanwhile, it is pending for those. Called by Store::save_webhook.
create or replace function public.wpp_save_webhook(
  p_organization_id uuid, p_integration_id uuid, p_api_key text, p_session text, p_url text)
returns void
language sql volatile set search_path = '' set lock_timeout = '2s'
as $$
  insert into public.wpp_numbers (integration_id, organization_id, webhook_digest, webhook_url)
  select i.id, i.organization_id,
    wpp_internal.credentials_digest(jsonb_build_object('wppApiKey', p_api_key, 'wppAccountNumber', p_session)), p_url
  from public.messenger_integrations i
  where i.id = p_integration_id and i.organization_id = p_organization_id
  on conflict (integration_id) do update
  set organization_id = excluded.organization_id,
      webhook_digest = excluded.webhook_digest, webhook_url = excluded.webhook_url
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
