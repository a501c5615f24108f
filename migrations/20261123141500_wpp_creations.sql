-- How a number comes by its credentials. The intention is written down here before the platform is asked: whoever comes after
-- a crash, a retry or a double click finds it and finishes it, with the same id at the platform and so the same session. The shared
-- table hears of a number once the platform has given its credentials.

set lock_timeout = '5s';

-- An intention, and for a day what came of it. `kind`: first (a number for an organisation that has none), additional (one more, with
-- an id of its own at the platform), replacement (new credentials for the number `integration_id`). `holder` is the attempt
-- that is at it, until `held_until`. Finished, `integration_id` is the number that it made.
create table if not exists public.wpp_creations (
  id uuid primary key default gen_random_uuid(),
  organization_id uuid not null,
  kind text not null check (kind in ('first', 'additional', 'replacement')),
  integration_id uuid,
  platform_id text not null,
  holder uuid,
  held_until timestamptz,
  created_at timestamptz not null default now(),
  finished_at timestamptz
);
create index if not exists wpp_creations_by_organization on public.wpp_creations (organization_id);
alter table public.wpp_creations enable row level security;

-- What a client's idempotency key stands for, for a day: a request, and the creation that it began or joined, if it needed one.
create table if not exists public.wpp_idempotency_keys (
  organization_id uuid not null,
  key text not null,
  request jsonb not null,
  creation_id uuid,
  created_at timestamptz not null default now(),
  primary key (organization_id, key)
);
alter table public.wpp_idempotency_keys enable row level security;

-- One decision at a time about an organisation's numbers; the platform is never called under this lock.
create or replace function wpp_internal.lock_organization(p_organization_id uuid) returns void
language sql volatile
return pg_advisory_xact_lock(hashtextextended('wpp_creation ' || p_organization_id, 0));

-- Forgets what is a day old and that no idempotency key stands for, and what is about a number that somebody has deleted or
-- given to another organisation. That such a number's key was rejected is kept for a day: the platform may give it again.
create or replace function wpp_internal.forget_old(p_organization_id uuid) returns void
language sql volatile set search_path = ''
as $$
  delete from public.wpp_idempotency_keys k
  where k.organization_id = p_organization_id and k.created_at < clock_timestamp() - interval '24 hours';
  delete from public.wpp_creations c
  where c.organization_id = p_organization_id
    and (greatest(c.created_at, c.finished_at, c.held_until) < clock_timestamp() - interval '24 hours'
        and not exists (
          select from public.wpp_idempotency_keys k
          where k.organization_id = p_organization_id and k.creation_id = c.id)
      or c.integration_id is not null
        and not exists (select from public.messenger_integrations i
          where i.id = c.integration_id and i.organization_id = c.organization_id));
  delete from public.wpp_numbers n
  where n.organization_id = p_organization_id
    and not exists (select from public.messenger_integrations i
      where i.id = n.integration_id and i.organization_id = n.organization_id);
  delete from public.wpp_token_leases l
  where l.organization_id = p_organization_id
    and (l.failure = 'api_key_rejected' and l.retry_at > clock_timestamp() - interval '24 hours') is not true
    and not exists (select from public.messenger_integrations i
      where i.id = l.integration_id and i.organization_id = l.organization_id)
$$;

-- An id at the platform that no other number has.
create or replace function wpp_internal.new_platform_id(p_organization_id uuid) returns text
language sql volatile
return p_organization_id || '__wpp__' || substr(md5(gen_random_uuid()::text), 1, 8);

-- What add_new goes on with instead of adding one more: a number with credentials that no phone has linked yet, the
-- organisation's own one or one that was added in the last 24 hours.
create or replace function wpp_internal.number_to_link(p_organization_id uuid) returns uuid
language sql stable set search_path = ''
as $$
  select i.id
  from public.messenger_integrations i
  join public.wpp_numbers n on n.integration_id = i.id
  where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp' and i.provider = 'wpp'
    and wpp_internal.works(i.is_active, i.settings) and not wpp_internal.was_linked(i.id)
    and (coalesce(i.settings ->> 'wppSubOrgId', '') = ''
      or n.credentials_saved_at > clock_timestamp() - interval '24 hours')
  order by n.credentials_saved_at desc
  limit 1
$$;

-- A number's id at the platform: its own, else the organisation's; a new one for a row without credentials beside a number that
-- has the organisation's.
create or replace function wpp_internal.platform_id(p_organization_id uuid, p_integration_id uuid) returns text
language plpgsql volatile set search_path = ''
as $$
declare
  v_settings jsonb;
begin
  select i.settings into v_settings from public.messenger_integrations i where i.id = p_integration_id;
  if coalesce(v_settings ->> 'wppSubOrgId', '') <> '' then
    return v_settings ->> 'wppSubOrgId';
  elsif not wpp_internal.has_credentials(v_settings) and exists (
    select from public.messenger_integrations i
    where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp' and i.provider = 'wpp'
      and coalesce(i.settings ->> 'wppSubOrgId', '') = '' and wpp_internal.has_credentials(i.settings))
  then
    return wpp_internal.new_platform_id(p_organization_id);
  end if;
  return p_organization_id;
end
$$;

-- The creation that a request joins, since somebody has begun what it means and not ended: new credentials for the number, or where
-- it has found none, a new number. A force_recreate joins one that has ended within the last minute, too: so soon, it
-- is the repetition of a request whose answer was lost.
create or replace function wpp_internal.creation_to_join(p_organization_id uuid, p_integration_id uuid, p_mode text)
returns public.wpp_creations
language sql stable set search_path = ''
as $$
  select c.*
  from public.wpp_creations c
  where c.organization_id = p_organization_id and case
    when p_integration_id is null
      then c.finished_at is null and (c.kind = 'first' or c.kind = 'additional' and p_mode = 'add_new')
    else c.integration_id = p_integration_id and c.kind = 'replacement' and (c.finished_at is null
      or p_mode = 'force_recreate' and c.finished_at > clock_timestamp() - interval '1 minute'
        and wpp_internal.credentials_origin(p_integration_id) = 'saved') end
  order by c.finished_at desc nulls first, c.created_at desc
  limit 1
$$;

-- Whether a request of `p_mode` is to bring a number new credentials; `p_is_begun`, whether somebody has begun to. `p_rejected`
-- is the key that heal is about.
create or replace function wpp_internal.needs_credentials(
  p_integration_id uuid, p_mode text, p_rejected text, p_is_begun boolean)
returns boolean
language sql stable set search_path = ''
as $$
  select case p_mode
    when 'force_recreate' then true
    -- Nobody asked for it, so only where nothing that works can be lost: a replacement was begun and has died, a
    -- sibling wrote the replaced credentials back, or no phone was ever linked with these.
    when 'heal' then w.works and coalesce(i.settings ->> 'wppApiKey' = p_rejected, false)
      and (p_is_begun or coalesce(wpp_internal.credentials_origin(i.id) = 'replaced', false)
        or not wpp_internal.was_linked(i.id))
    else not w.works end
  from public.messenger_integrations i
  cross join lateral (select wpp_internal.works(i.is_active, i.settings) as works) w
  where i.id = p_integration_id
$$;

-- Begins, resumes or joins the creation that a request means. Called by Store::begin_creation.
-- Answers {now_ms, outcome, ...}; outcome is
--   existing         `number` has its credentials: nothing to create;
--   begun            the caller asks the platform for `platform_id` and saves the credentials as `creation`; `number`
--                    is the one that gets them, null where its row is still to come;
--   busy             another caller is at `creation`, for at most `wait_ms` more;
--   mismatch         the idempotency key was used with another request;
--   unknown          the organisation has no such number, or no longer;
--   no_organization  the user has none.
-- `p_request` is what is meant: {mode, session, integration_id, rejected}. The mode is ensure (the organisation's number, else a
-- first one), add_new, force_recreate, or heal (new credentials for a number whose key `rejected` the platform no longer takes).
-- `session` or `integration_id` names a number; without, it is the organisation's choice.
-- `p_holder` names the attempt: repeating a call with it repeats the answer. `p_waited_for` is the creation that it has waited
-- for: once that is finished, its number is the answer.
create or replace function public.wpp_begin_creation(
  p_user_id uuid, p_request jsonb, p_holder uuid, p_lease_ms integer,
  p_waited_for uuid default null, p_idempotency_key text default null)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_mode text := p_request ->> 'mode';
  v_organization uuid;
  v_key public.wpp_idempotency_keys;
  v_creation public.wpp_creations;
  v_number uuid;
  v_existing uuid;
  v_row jsonb;
begin
  select p.organization_id into v_organization from public.profiles p where p.id = p_user_id;
  if v_organization is null then
    return wpp_internal.answer('no_organization');
  end if;
  perform wpp_internal.lock_organization(v_organization);
  -- Whoever deletes one of these numbers meanwhile waits until this is decided. Nobody is waited for: with several rows locked,
  -- that could be a deadlock.
  perform from public.messenger_integrations i
  where i.organization_id = v_organization for key share skip locked;
  perform wpp_internal.forget_old(v_organization);

  select * into v_key from public.wpp_idempotency_keys k
  where k.organization_id = v_organization and k.key = p_idempotency_key;
  if v_key.request <> p_request then
    return wpp_internal.answer('mismatch');
  end if;

  -- What the request goes on with: the creation that it has waited for, or the one that its key stands for.
  select * into v_creation from public.wpp_creations c
  where c.id = coalesce(p_waited_for, v_key.creation_id) and c.organization_id = v_organization;
  -- Else with what is there, or was begun by somebody who meant the same. Each key that adds a number adds its own.
  if v_creation.id is null and (v_mode <> 'add_new' or p_idempotency_key is null) then
    v_number := case v_mode when 'add_new' then wpp_internal.number_to_link(v_organization)
      else wpp_internal.choose_number(
        v_organization, p_request ->> 'session', (p_request ->> 'integration_id')::uuid, false) end;
    if v_number is null and coalesce(p_request ->> 'session', p_request ->> 'integration_id') is not null then
      return wpp_internal.answer('unknown');
    end if;
    v_creation := wpp_internal.creation_to_join(v_organization, v_number, v_mode);
  end if;

  if v_creation.finished_at is not null then
    v_existing := v_creation.integration_id;
  elsif not wpp_internal.needs_credentials(v_number, v_mode, p_request ->> 'rejected', v_creation.id is not null) then
    v_existing := v_number;
    v_creation := null;
  elsif v_creation.id is null then
    insert into public.wpp_creations (organization_id, kind, integration_id, platform_id)
    values (v_organization,
      case when v_mode = 'add_new' then 'additional' when v_number is null then 'first' else 'replacement' end,
      v_number,
      case when v_mode = 'add_new' then wpp_internal.new_platform_id(v_organization)
        else wpp_internal.platform_id(v_organization, v_number) end)
    returning * into v_creation;
  end if;
  if p_idempotency_key is not null then
    insert into public.wpp_idempotency_keys (organization_id, key, request, creation_id)
    values (v_organization, p_idempotency_key, p_request, v_creation.id)
    on conflict (organization_id, key) do update set creation_id = excluded.creation_id;
  end if;

  if v_existing is not null then
    v_row := wpp_internal.number(v_existing);
    return wpp_internal.answer(case when v_row is null then 'unknown' else 'existing' end,
      jsonb_build_object('number', v_row));
  end if;
  if v_creation.holder <> p_holder and wpp_internal.ms_left(v_creation.held_until, clock_timestamp()) is not null then
    return wpp_internal.answer('busy', jsonb_build_object('creation', v_creation.id,
      'wait_ms', wpp_internal.ms_left(v_creation.held_until, clock_timestamp())));
  end if;
  update public.wpp_creations c
  set holder = p_holder, held_until = clock_timestamp() + p_lease_ms * interval '1 millisecond'
  where c.id = v_creation.id;
  return wpp_internal.answer('begun', jsonb_build_object('creation', v_creation.id, 'organization_id', v_organization,
    'platform_id', v_creation.platform_id, 'number', wpp_internal.number(v_creation.integration_id)));
end
$$;

-- Makes the row of a new number, with the words in the types that the table has for them.
create or replace function wpp_internal.new_number(p_organization_id uuid) returns uuid
language sql volatile set search_path = ''
as $$
  insert into public.messenger_integrations
    (organization_id, messenger_type, provider, name, is_active, is_primary, webhook_key, settings, created_at, updated_at)
  select p_organization_id, r.messenger_type, r.provider, 'WhatsApp (WPP)', true, false, r.webhook_key, '{}',
    clock_timestamp(), clock_timestamp()
  from jsonb_populate_record(null::public.messenger_integrations, jsonb_build_object(
    'messenger_type', 'whatsapp', 'provider', 'wpp', 'webhook_key', gen_random_uuid())) r
  returning id
$$;

-- Puts the credentials that the platform gave into the number's row, which is made here where it is a new one, in one transaction
-- with everything that depends on it. Called by Store::save_credentials. Safe to repeat.
-- Answers {now_ms, outcome, number?}; outcome is
--   saved       the row holds them;
--   superseded  another attempt has taken the creation over;
--   rejected    it is the very key that the platform rejected for a number that was deleted: only another id brings another;
--   gone        somebody has deleted the number meanwhile: it stays so.
create or replace function public.wpp_save_credentials(
  p_organization_id uuid, p_creation uuid, p_holder uuid, p_api_key text, p_session text)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_creation public.wpp_creations;
  v_number uuid;
  v_settings jsonb;
  v_given jsonb := jsonb_build_object('wppApiKey', p_api_key, 'wppAccountNumber', p_session);
  v_digest text := wpp_internal.credentials_digest(v_given);
  v_row jsonb;
begin
  perform wpp_internal.lock_organization(p_organization_id);
  select * into v_creation from public.wpp_creations c
  where c.id = p_creation and c.organization_id = p_organization_id and c.holder = p_holder;
  if not found then
    return wpp_internal.answer('superseded');
  end if;

  v_number := v_creation.integration_id;
  if v_creation.finished_at is null then
    -- Another writer may have made a row for this session meanwhile, which is then the number's.
    if v_number is null then
      v_number := wpp_internal.choose_number(p_organization_id, p_session, null, false);
    end if;
    if v_number is null and exists (
      select from public.wpp_token_leases l
      where l.organization_id = p_organization_id and l.failure = 'api_key_rejected' and l.key_digest = md5(p_api_key))
    then
      return wpp_internal.answer('rejected');
    end if;
    v_number := coalesce(v_number, wpp_internal.new_number(p_organization_id));
    v_settings := wpp_internal.lock_settings(p_organization_id, v_number);
    if v_settings is null then
      return wpp_internal.answer('gone');
    end if;

    -- A token of another key would be refused beside the new one, so it goes with its key.
    update public.messenger_integrations i
    set settings = v_settings - 'wppSubOrgId' - (case when v_settings ->> 'wppApiKey' = p_api_key then '{}'
            else '{wppJwtToken,wppJwtExpiresAt}' end)::text[]
          || v_given
          || case when v_creation.platform_id = p_organization_id::text then '{}'
            else jsonb_build_object('wppSubOrgId', v_creation.platform_id) end,
        is_active = true, updated_at = clock_timestamp()
    where i.id = v_number;
    insert into public.wpp_numbers as n (integration_id, organization_id, saved_digest, credentials_saved_at)
    values (v_number, p_organization_id, v_digest, clock_timestamp())
    on conflict (integration_id) do update
    set organization_id = excluded.organization_id,
        first_connected_at = case when n.saved_digest = v_digest then n.first_connected_at end,
        saved_digest = v_digest, replaced_digest = wpp_internal.credentials_digest(v_settings),
        credentials_saved_at = excluded.credentials_saved_at,
        -- What is new at the platform has to be told again where to report to.
        webhook_digest = null, webhook_url = null, webhook_tried_at = null;
    -- What was said of the key before is no longer true, also where it is the same key.
    update public.wpp_token_leases l
    set failure = null, retry_at = null
    where l.integration_id = v_number;
    update public.wpp_creations c
    set integration_id = v_number, finished_at = clock_timestamp(), held_until = null
    where c.id = v_creation.id;
    perform wpp_internal.settle_primary(p_organization_id);
  end if;
  v_row := wpp_internal.number(v_number);
  return wpp_internal.answer(case when v_row is null then 'gone' else 'saved' end, jsonb_build_object('number', v_row));
end
$$;

-- Gives a creation another id at the platform, for a key that the platform hands out but no longer takes. Called by
-- Store::assign_platform_id.
-- Answers the new id, or null where the attempt no longer holds the creation. Safe to repeat after a lost answer:
-- the id then changes again, and only the last one is asked for.
create or replace function public.wpp_assign_platform_id(p_organization_id uuid, p_creation uuid, p_holder uuid)
returns text
language sql volatile set search_path = '' set lock_timeout = '2s'
as $$
  update public.wpp_creations c
  set platform_id = wpp_internal.new_platform_id(p_organization_id)
  where c.id = p_creation and c.organization_id = p_organization_id and c.holder = p_holder and c.finished_at is null
  returning c.platform_id
$$;

-- Lets the next caller go on at once after an attempt that failed. Called by Store::release_creation.
create or replace function public.wpp_release_creation(p_organization_id uuid, p_creation uuid, p_holder uuid)
returns void
language sql volatile set search_path = '' set lock_timeout = '2s'
as $$
  update public.wpp_creations c
  set held_until = null
  where c.id = p_creation and c.organization_id = p_organization_id and c.holder = p_holder
$$;

revoke all on table public.wpp_creations, public.wpp_idempotency_keys from public, anon, authenticated;
grant select, insert, update, delete on table public.wpp_creations, public.wpp_idempotency_keys to service_role;
revoke all on all functions in schema wpp_internal from public, anon, authenticated;
grant execute on all functions in schema wpp_internal to service_role;
revoke all on function
  public.wpp_begin_creation, public.wpp_save_credentials, public.wpp_assign_platform_id, public.wpp_release_creation
  from public, anon, authenticated;
grant execute on function
  public.wpp_begin_creation, public.wpp_save_credentials, public.wpp_assign_platform_id, public.wpp_release_creation
  to service_role;

notify pgrst, 'reload schema';
reset lock_timeout;
