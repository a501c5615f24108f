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
create or replace function public.wpp_lock_organization(p_organization_id uuid) returns void
language plpgsql set search_path = ''
as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('wpp_creation ' || p_organization_id, 0));
end
$$;

-- Forgets what is a day old and that no idempotency key stands for, and what is about a number that somebody has deleted or
-- given to another organisation. That such a number's key was rejected is kept for a day: the platform may give it again.
create or replace function public.wpp_forget_old(p_organization_id uuid) returns void
language plpgsql set search_path = ''
as $$
begin
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
      where i.id = l.integration_id and i.organization_id = l.organization_id);
end
$$;

-- An id at the platform that no other number has.
create or replace function public.wpp_new_platform_id(p_organization_id uuid) returns text
language sql volatile
return p_organization_id || '__wpp__' || substr(md5(gen_random_uuid()::text), 1, 8);

-- What add_new goes on with instead of adding one more: a number with credentials that no phone has linked yet, the
-- organisation's own one or one that was added in the last 24 hours.
create or replace function public.wpp_number_to_link(p_organization_id uuid) returns uuid
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select i.id
    from public.messenger_integrations i
    join public.wpp_numbers n on n.integration_id = i.id
    where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp' and i.provider = 'wpp'
      and i.is_active and public.wpp_has_credentials(i.settings) and not public.wpp_was_linked(i.id)
      and (coalesce(i.settings ->> 'wppSubOrgId', '') = ''
        or n.credentials_saved_at > clock_timestamp() - interval '24 hours')
    order by n.credentials_saved_at desc
    limit 1);
end
$$;

-- Whether a number's row holds the credentials that were saved in it last, and not older ones that a sibling wrote back.
create or replace function public.wpp_is_as_saved(p_integration_id uuid) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return not exists (
    select from public.wpp_numbers n
    join public.messenger_integrations i on i.id = n.integration_id
    where n.integration_id = p_integration_id and n.saved_digest <> public.wpp_credentials_digest(i.settings));
end
$$;

-- Whether a sibling has written those credentials back into a number's row that were replaced there.
create or replace function public.wpp_is_written_back(p_integration_id uuid) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return exists (
    select from public.wpp_numbers n
    join public.messenger_integrations i on i.id = n.integration_id
    where n.integration_id = p_integration_id and n.saved_digest <> n.replaced_digest
      and n.replaced_digest = public.wpp_credentials_digest(i.settings));
end
$$;

-- A number's id at the platform: its own, else the organisation's; a new one for a row without credentials beside a number that
-- has the organisation's.
create or replace function public.wpp_platform_id(p_organization_id uuid, p_integration_id uuid) returns text
language plpgsql volatile set search_path = ''
as $$
declare
  v_settings jsonb;
begin
  select i.settings into v_settings from public.messenger_integrations i where i.id = p_integration_id;
  if coalesce(v_settings ->> 'wppSubOrgId', '') <> '' then
    return v_settings ->> 'wppSubOrgId';
  elsif not public.wpp_has_credentials(v_settings) and exists (
    select from public.messenger_integrations i
    where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp' and i.provider = 'wpp'
      and coalesce(i.settings ->> 'wppSubOrgId', '') = '' and public.wpp_has_credentials(i.settings))
  then
    return public.wpp_new_platform_id(p_organization_id);
  end if;
  return p_organization_id;
end
$$;

-- Whether a request of `p_mode` is to bring a number new credentials. `p_begun` is whether somebody has begun to.
create or replace function public.wpp_needs_credentials(
  p_integration_id uuid, p_mode text, p_begun boolean, p_rejected text)
returns boolean
language plpgsql stable set search_path = ''
as $$
declare
  v_number public.messenger_integrations;
  v_works boolean;
begin
  select * into v_number from public.messenger_integrations i where i.id = p_integration_id;
  v_works := coalesce(v_number.is_active, false) and public.wpp_has_credentials(v_number.settings);
  return case p_mode
    when 'ensure' then not v_works
    when 'force_recreate' then true
    -- Nobody asked for it, so only where nothing that works can be lost: a replacement was begun and has died, a
    -- sibling wrote the replaced credentials back, or no phone was ever linked with these.
    when 'heal' then v_works and coalesce(v_number.settings ->> 'wppApiKey' = p_rejected, false)
      and (p_begun or public.wpp_is_written_back(p_integration_id) or not public.wpp_was_linked(p_integration_id))
    end;
end
$$;

-- Begins, resumes or joins the creation that a request means. Called by Store::begin_creation.
-- Answers {now_ms, outcome, ...}; outcome is
--   existing         `number` has its credentials: nothing to create;
--   begun            the caller asks the platform for `platform_id` and saves the credentials as `creation`; `number`
--                    is the one that gets them, null where its row is still to come;
--   busy             another caller is at `creation`, for at most `wait_ms` more;
--   mismatch         the idempotency key was used with another request;
--   unknown          the organisation has no such number;
--   no_organization  the user has none.
-- `p_mode`: ensure (the organisation's number, else a first one), add_new, force_recreate, or heal (new credentials for a
-- number whose key `p_rejected` the platform no longer takes, see wpp_needs_credentials).
-- `p_session` or `p_integration_id` names a number; without, it is the organisation's choice.
-- `p_waited_for` is the creation that the caller has waited for: once that is finished, its number is the answer.
-- `p_holder` names the attempt: repeating a call with it repeats the answer.
create or replace function public.wpp_begin_creation(
  p_user_id uuid, p_mode text, p_holder uuid, p_lease_ms integer,
  p_session text default null, p_integration_id uuid default null, p_waited_for uuid default null,
  p_idempotency_key text default null, p_request jsonb default '{}', p_rejected text default null)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_organization uuid;
  v_key public.wpp_idempotency_keys;
  v_creation public.wpp_creations;
  v_target uuid;
  v_existing uuid;
  v_answer jsonb;
begin
  select p.organization_id into v_organization from public.profiles p where p.id = p_user_id;
  if v_organization is null then
    return jsonb_build_object('now_ms', public.wpp_now_ms(), 'outcome', 'no_organization');
  end if;
  perform public.wpp_lock_organization(v_organization);
  -- Whoever deletes one of these numbers meanwhile waits until this is decided.
  perform from public.messenger_integrations i
  where i.organization_id = v_organization order by i.id for key share;
  perform public.wpp_forget_old(v_organization);
  v_answer := jsonb_build_object('now_ms', public.wpp_now_ms(), 'organization_id', v_organization);

  select * into v_key from public.wpp_idempotency_keys k
  where k.organization_id = v_organization and k.key = p_idempotency_key;
  if found and v_key.request <> p_request then
    return v_answer || '{"outcome": "mismatch"}';
  end if;

  -- What was begun: by what this request has waited for, by its key, or by whoever meant the same.
  select * into v_creation from public.wpp_creations c
  where c.id = coalesce(p_waited_for, v_key.creation_id) and c.organization_id = v_organization;
  if v_creation.id is null and p_mode = 'add_new' then
    if p_idempotency_key is null then
      v_existing := public.wpp_number_to_link(v_organization);
      select * into v_creation from public.wpp_creations c
      where v_existing is null and c.organization_id = v_organization
        and c.kind in ('first', 'additional') and c.finished_at is null
      order by c.created_at desc limit 1;
    end if;
  elsif v_creation.id is null then
    v_target := public.wpp_choose_number(v_organization, p_session, p_integration_id, false);
    if v_target is null and coalesce(p_session, p_integration_id::text) is not null then
      return v_answer || '{"outcome": "unknown"}';
    end if;
    select * into v_creation from public.wpp_creations c
    where c.organization_id = v_organization and case
      when v_target is null then c.kind = 'first' and c.finished_at is null
      else c.kind = 'replacement' and c.integration_id = v_target and (c.finished_at is null
        -- So soon after another it is the repetition of a request whose end was not heard of.
        or p_mode = 'force_recreate' and c.finished_at > clock_timestamp() - interval '1 minute'
          and public.wpp_is_as_saved(v_target)) end
    order by c.finished_at desc nulls first limit 1;
    if v_target is not null
      and not public.wpp_needs_credentials(v_target, p_mode, v_creation.id is not null, p_rejected)
    then
      v_existing := v_target;
    end if;
  end if;
  if v_creation.finished_at is not null then
    v_existing := v_creation.integration_id;
  end if;

  if v_existing is null and v_creation.id is null then
    insert into public.wpp_creations (organization_id, kind, integration_id, platform_id)
    values (v_organization,
      case when p_mode = 'add_new' then 'additional' when v_target is null then 'first' else 'replacement' end,
      v_target,
      case when p_mode = 'add_new' then public.wpp_new_platform_id(v_organization)
        else public.wpp_platform_id(v_organization, v_target) end)
    returning * into v_creation;
  end if;
  if p_idempotency_key is not null then
    insert into public.wpp_idempotency_keys as k (organization_id, key, request, creation_id)
    values (v_organization, p_idempotency_key, p_request,
      case when v_existing is null or v_creation.finished_at is not null then v_creation.id end)
    on conflict (organization_id, key) do update set creation_id = coalesce(excluded.creation_id, k.creation_id);
  end if;

  if v_existing is not null then
    return v_answer || jsonb_build_object('outcome', 'existing', 'number', public.wpp_number(v_existing));
  end if;
  if v_creation.holder <> p_holder and public.wpp_ms_left(v_creation.held_until, clock_timestamp()) is not null then
    return v_answer || jsonb_build_object('outcome', 'busy', 'creation', v_creation.id,
      'wait_ms', public.wpp_ms_left(v_creation.held_until, clock_timestamp()));
  end if;
  update public.wpp_creations c
  set holder = p_holder, held_until = clock_timestamp() + p_lease_ms * interval '1 millisecond'
  where c.id = v_creation.id;
  return v_answer || jsonb_build_object('outcome', 'begun', 'creation', v_creation.id,
    'platform_id', v_creation.platform_id, 'number', public.wpp_number(v_creation.integration_id));
end
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
  v_replaced text;
  v_digest text := public.wpp_credentials_digest(
    jsonb_build_object('wppApiKey', p_api_key, 'wppAccountNumber', p_session));
begin
  perform public.wpp_lock_organization(p_organization_id);
  select * into v_creation from public.wpp_creations c
  where c.id = p_creation and c.organization_id = p_organization_id and c.holder = p_holder;
  if not found then
    return jsonb_build_object('now_ms', public.wpp_now_ms(), 'outcome', 'superseded');
  end if;

  v_number := v_creation.integration_id;
  if v_creation.finished_at is null then
    -- Another writer may have made a row for this session meanwhile, which is then the number's.
    if v_number is null then
      v_number := public.wpp_choose_number(p_organization_id, p_session, null, false);
    end if;
    if v_number is null and exists (
      select from public.wpp_token_leases l
      where l.organization_id = p_organization_id and l.failure = 'api_key_rejected' and l.key_digest = md5(p_api_key))
    then
      return jsonb_build_object('now_ms', public.wpp_now_ms(), 'outcome', 'rejected');
    end if;
    if v_number is null then
      insert into public.messenger_integrations
        (organization_id, messenger_type, provider, name, is_active, is_primary, webhook_key, settings,
         created_at, updated_at)
      select r.organization_id, r.messenger_type, r.provider, r.name, true, false, r.webhook_key, '{}',
        clock_timestamp(), clock_timestamp()
      from jsonb_populate_record(null::public.messenger_integrations, jsonb_build_object(
        'organization_id', p_organization_id, 'messenger_type', 'whatsapp', 'provider', 'wpp',
        'name', 'WhatsApp (WPP)', 'webhook_key', gen_random_uuid())) r
      returning id into v_number;
    end if;
    select public.wpp_credentials_digest(i.settings) into v_replaced
    from public.messenger_integrations i
    where i.id = v_number and i.organization_id = p_organization_id for no key update;
    -- A token of another key would be refused beside the new one, so it goes with its key.
    update public.messenger_integrations i
    set settings = public.wpp_settings(i.settings) - 'wppSubOrgId'
          - (case when i.settings ->> 'wppApiKey' = p_api_key then '{}'
            else '{wppJwtToken,wppJwtExpiresAt}' end)::text[]
          || jsonb_build_object('wppApiKey', p_api_key, 'wppAccountNumber', p_session)
          || case when v_creation.platform_id = p_organization_id::text then '{}'
            else jsonb_build_object('wppSubOrgId', v_creation.platform_id) end,
        is_active = true,
        updated_at = clock_timestamp()
    where i.id = v_number and i.organization_id = p_organization_id;
    if not found then
      return jsonb_build_object('now_ms', public.wpp_now_ms(), 'outcome', 'gone');
    end if;

    insert into public.wpp_numbers as n (integration_id, organization_id, saved_digest, credentials_saved_at)
    values (v_number, p_organization_id, v_digest, clock_timestamp())
    on conflict (integration_id) do update
    set organization_id = excluded.organization_id,
        first_connected_at = case when n.saved_digest = v_digest then n.first_connected_at end,
        saved_digest = v_digest, replaced_digest = v_replaced, credentials_saved_at = excluded.credentials_saved_at,
        -- What is new at the platform has to be told again where to report to.
        webhook_digest = null, webhook_url = null, webhook_tried_at = null;
    -- What was said of the key before is no longer true, also where it is the same key.
    update public.wpp_token_leases l
    set failure = null, retry_at = null
    where l.integration_id = v_number;
    update public.wpp_creations c
    set integration_id = v_number, finished_at = clock_timestamp(), held_until = null
    where c.id = v_creation.id;
    perform public.wpp_settle_primary(p_organization_id);
  end if;
  return jsonb_build_object('now_ms', public.wpp_now_ms(),
    'outcome', case when public.wpp_number(v_number) is null then 'gone' else 'saved' end,
    'number', public.wpp_number(v_number));
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
  set platform_id = public.wpp_new_platform_id(p_organization_id)
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
revoke all on function
  public.wpp_lock_organization(uuid),
  public.wpp_forget_old(uuid),
  public.wpp_new_platform_id(uuid),
  public.wpp_number_to_link(uuid),
  public.wpp_is_as_saved(uuid),
  public.wpp_is_written_back(uuid), public.wpp_platform_id(uuid, uuid),
  public.wpp_needs_credentials(uuid, text, boolean, text),
  public.wpp_begin_creation(uuid, text, uuid, integer, text, uuid, uuid, text, jsonb, text),
  public.wpp_save_credentials(uuid, uuid, uuid, text, text),
  public.wpp_assign_platform_id(uuid, uuid, uuid),
  public.wpp_release_creation(uuid, uuid, uuid)
  from public, anon, authenticated;
grant execute on function
  public.wpp_lock_organization(uuid),
  public.wpp_forget_old(uuid),
  public.wpp_new_platform_id(uuid),
  public.wpp_number_to_link(uuid),
  public.wpp_is_as_saved(uuid),
  public.wpp_is_written_back(uuid), public.wpp_platform_id(uuid, uuid),
  public.wpp_needs_credentials(uuid, text, boolean, text),
  public.wpp_begin_creation(uuid, text, uuid, integer, text, uuid, uuid, text, jsonb, text),
  public.wpp_save_credentials(uuid, uuid, uuid, text, text),
  public.wpp_assign_platform_id(uuid, uuid, uuid),
  public.wpp_release_creation(uuid, uuid, uuid)
  to service_role;

notify pgrst, 'reload schema';
reset lock_timeout;
