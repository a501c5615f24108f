-- The intention to create a number, written down before the platform is asked: whoever comes after a crash, a retry
-- or a double click finds it here and finishes it, with the same id at the platform and so the same session.

-- `intention`: first (a number for an organisation without a working one), additional (one more, with an id of its own),
-- replacement (new credentials for a number that works).
-- `keyed_at` is when the credentials reached the row; `linked_at` when the number was first seen connected.
create table if not exists public.wpp_creations (
  id uuid primary key default gen_random_uuid(),
  organization_id uuid not null,
  integration_id uuid not null references public.messenger_integrations (id) on delete cascade,
  intention text not null check (intention in ('first', 'additional', 'replacement')),
  platform_id text not null,
  idempotency_key text,
  request jsonb,
  holder uuid,
  held_until timestamptz,
  created_at timestamptz not null default now(),
  keyed_at timestamptz,
  linked_at timestamptz,
  unique (organization_id, idempotency_key)
);
create index if not exists wpp_creations_of_integration on public.wpp_creations (integration_id);
alter table public.wpp_creations enable row level security;

-- An id at the platform that no other number has.
create or replace function public.wpp_new_platform_id(p_organization_id uuid) returns text
language sql volatile set search_path = ''
as $$ select p_organization_id || '__wpp__' || substr(md5(gen_random_uuid()::text), 1, 8) $$;

-- What `settings` say of a number's id at the platform: nothing where it is the organisation's own.
create or replace function public.wpp_sub_org_id(p_organization_id uuid, p_platform_id text) returns jsonb
language sql immutable set search_path = ''
as $$
  select case when p_platform_id = p_organization_id::text then '{}'
    else jsonb_build_object('wppSubOrgId', p_platform_id) end
$$;

-- Whether a number is in use and has its credentials.
create or replace function public.wpp_works(p_number public.messenger_integrations) returns boolean
language sql immutable set search_path = ''
as $$
  select coalesce(p_number.is_active, false) and count(*) = 2
  from jsonb_each(public.wpp_settings(p_number.settings)) s
  where s.key in ('wppApiKey', 'wppAccountNumber') and jsonb_typeof(s.value) = 'string' and s.value <> '""'
$$;

-- Begins, resumes or joins the creation that a request means. Answers {now_ms, outcome, ...}; outcome is
--   existing         `number` has its credentials: nothing to create;
--   begun            the caller asks the platform for `platform_id` and saves the credentials as `creation`;
--   busy             another caller is at `creation`, for at most `wait_ms` more;
--   mismatch         the idempotency key was used with another request;
--   no_organization  the user has none.
-- `p_intention`: use (the organisation's number, else a first one), additional, replacement.
-- `p_joined` is the creation the caller has waited for: once that is finished, its number is the answer.
-- `p_holder` names the attempt: repeating a call with it repeats the answer.
create or replace function public.wpp_begin_creation(
  p_user_id uuid, p_intention text, p_holder uuid, p_lease_ms integer,
  p_joined uuid default null, p_idempotency_key text default null, p_request jsonb default null)
returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_organization uuid;
  v_creation public.wpp_creations;
  v_number public.messenger_integrations;
  v_works boolean := false;
  v_platform_id text;
  v_now timestamptz;
  v_answer jsonb;
begin
  select p.organization_id into v_organization from public.profiles p where p.id = p_user_id;
  if v_organization is null then
    return jsonb_build_object('now_ms', public.wpp_now_ms(), 'outcome', 'no_organization');
  end if;
  -- One decision at a time per organisation; the platform is never called under this lock.
  perform pg_advisory_xact_lock(hashtextextended('wpp_creation ' || v_organization, 0));
  v_now := clock_timestamp();
  v_answer := jsonb_build_object('now_ms', public.wpp_unix_ms(v_now));

  update public.wpp_creations c
  set idempotency_key = null, request = null
  where c.organization_id = v_organization and c.idempotency_key is not null
    and c.created_at < v_now - interval '24 hours';

  -- The creation this request means, if one was begun before.
  if p_joined is not null then
    select * into v_creation from public.wpp_creations c
    where c.id = p_joined and c.organization_id = v_organization;
  elsif p_idempotency_key is not null then
    select * into v_creation from public.wpp_creations c
    where c.organization_id = v_organization and c.idempotency_key = p_idempotency_key;
    if found and v_creation.request is distinct from p_request then
      return v_answer || '{"outcome": "mismatch"}';
    end if;
  end if;

  if v_creation.id is null and p_intention <> 'additional' then
    -- The organisation's number: one that works, else one to bring to work: disconnected, or never finished. The row
    -- of an unfinished additional number, which has its own id and no key yet, is not one of these.
    select i.* into v_number from public.messenger_integrations i
    where i.organization_id = v_organization and i.messenger_type = 'whatsapp' and i.provider = 'wpp'
      and (i.settings ->> 'wppSubOrgId' is null or i.settings ->> 'wppApiKey' <> '')
    order by public.wpp_works(i) desc, i.is_primary desc nulls last, i.created_at, i.id limit 1;
    v_works := v_number.id is not null and public.wpp_works(v_number);
    if v_works and p_intention = 'use' then
      return v_answer || jsonb_build_object('outcome', 'existing', 'number', public.wpp_number(v_number.id));
    end if;
    -- What was begun for it and not finished.
    select c.* into v_creation from public.wpp_creations c
    where c.integration_id = v_number.id and c.intention <> 'additional' and c.keyed_at is null
    order by c.created_at desc limit 1;
  elsif v_creation.id is null and p_idempotency_key is null then
    -- Without a key, the intention is the same until a phone is linked: a number that waits for that is not doubled.
    select c.* into v_creation from public.wpp_creations c
    join public.messenger_integrations i on i.id = c.integration_id
    where c.organization_id = v_organization and c.intention = 'additional' and c.linked_at is null
      and (c.keyed_at is null or i.is_active and c.created_at > v_now - interval '24 hours')
      and not exists (
        select from public.whatsapp_sessions s
        where s.organization_id = v_organization and s.status = 'connected'
          and s.session_name = 'wpp_' || (i.settings ->> 'wppAccountNumber'))
    order by c.created_at desc limit 1;
  end if;

  if v_creation.keyed_at is not null then
    return v_answer || jsonb_build_object('outcome', 'existing',
      'number', public.wpp_number(v_creation.integration_id));
  end if;

  if v_creation.id is null then
    v_platform_id := case when p_intention = 'additional' then public.wpp_new_platform_id(v_organization)
      else coalesce(v_number.settings ->> 'wppSubOrgId', v_organization::text) end;
    if v_number.id is null then
      insert into public.messenger_integrations
        (organization_id, messenger_type, provider, name, is_active, is_primary, webhook_key, settings)
      values (v_organization, 'whatsapp', 'wpp', 'WhatsApp (WPP)', false, false, gen_random_uuid()::text,
        public.wpp_sub_org_id(v_organization, v_platform_id))
      returning * into v_number;
    end if;
    insert into public.wpp_creations
      (organization_id, integration_id, intention, platform_id, idempotency_key, request)
    values (v_organization, v_number.id,
      case when p_intention = 'additional' then 'additional' when v_works then 'replacement' else 'first' end,
      v_platform_id, p_idempotency_key, p_request)
    returning * into v_creation;
  end if;

  if v_creation.held_until > v_now and v_creation.holder <> p_holder then
    return v_answer || jsonb_build_object('outcome', 'busy', 'creation', v_creation.id,
      'wait_ms', public.wpp_unix_ms(v_creation.held_until) - public.wpp_unix_ms(v_now));
  end if;
  update public.wpp_creations c
  set holder = p_holder, held_until = v_now + p_lease_ms * interval '1 millisecond',
      idempotency_key = coalesce(c.idempotency_key, p_idempotency_key),
      request = case when c.idempotency_key is null then p_request else c.request end
  where c.id = v_creation.id;
  return v_answer || jsonb_build_object('outcome', 'begun', 'creation', v_creation.id,
    'platform_id', v_creation.platform_id, 'number', public.wpp_number(v_creation.integration_id));
end
$$;

-- Puts the credentials that the platform gave into the row and makes it a working number, in one transaction with
-- everything that depends on it. Answers {now_ms, outcome: saved | superseded, number?}. Safe to repeat.
create or replace function public.wpp_save_credentials(
  p_organization_id uuid, p_creation uuid, p_holder uuid, p_api_key text, p_session text)
returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_creation public.wpp_creations;
begin
  perform pg_advisory_xact_lock(hashtextextended('wpp_creation ' || p_organization_id, 0));
  select * into v_creation from public.wpp_creations c
  where c.id = p_creation and c.organization_id = p_organization_id and c.holder = p_holder;
  if not found then
    return jsonb_build_object('now_ms', public.wpp_now_ms(), 'outcome', 'superseded');
  end if;

  if v_creation.keyed_at is null then
    -- A token of another key would be refused beside the new one, so it goes with its key.
    update public.messenger_integrations i
    set settings = public.wpp_settings(i.settings) - 'wppSubOrgId'
          - (case when i.settings ->> 'wppApiKey' = p_api_key then '{}'
            else '{wppJwtToken,wppJwtExpiresAt}' end)::text[]
          || jsonb_build_object('wppApiKey', p_api_key, 'wppAccountNumber', p_session)
          || public.wpp_sub_org_id(p_organization_id, v_creation.platform_id),
        is_active = true,
        is_primary = i.is_primary or not exists (
          select from public.messenger_integrations p
          where p.organization_id = p_organization_id and p.provider = 'wpp' and p.is_primary),
        updated_at = clock_timestamp()
    where i.id = v_creation.integration_id;
    update public.wpp_creations c
    set keyed_at = clock_timestamp(), held_until = null
    where c.id = v_creation.id;
  end if;
  return jsonb_build_object('now_ms', public.wpp_now_ms(), 'outcome', 'saved',
    'number', public.wpp_number(v_creation.integration_id));
end
$$;

-- Gives a creation another id at the platform, for a key that the platform hands out but no longer takes.
-- Answers the new id, or null where the attempt no longer holds the creation. Safe to repeat after a lost answer:
-- the id then changes again, and only the last one is asked for.
create or replace function public.wpp_move_creation(p_organization_id uuid, p_creation uuid, p_holder uuid)
returns text
language sql volatile set search_path = ''
as $$
  update public.wpp_creations c
  set platform_id = public.wpp_new_platform_id(p_organization_id)
  where c.id = p_creation and c.organization_id = p_organization_id and c.holder = p_holder and c.keyed_at is null
  returning c.platform_id
$$;

-- Lets the next caller go on at once after an attempt that failed.
create or replace function public.wpp_leave_creation(p_organization_id uuid, p_creation uuid, p_holder uuid)
returns void
language sql volatile set search_path = ''
as $$
  update public.wpp_creations c
  set held_until = null
  where c.id = p_creation and c.organization_id = p_organization_id and c.holder = p_holder
$$;
