-- The intention to create a number, written down before the platform is asked: whoever comes after a crash, a retry
-- or a double click finds it here and finishes it, with the same id at the platform and so the same session.

-- `intention`: first (a number for an organisation without a working one), additional (one more, with an id of its own),
-- replacement (new credentials for a number that has some). `forced` is whether somebody asked for new credentials.
-- `keyed_at` is when the credentials reached the row; `linked_at` when the number was first seen connected.
create table if not exists public.wpp_creations (
  id uuid primary key default gen_random_uuid(),
  organization_id uuid not null,
  integration_id uuid not null references public.messenger_integrations (id) on delete cascade,
  intention text not null check (intention in ('first', 'additional', 'replacement')),
  forced boolean not null default false,
  platform_id text not null,
  holder uuid,
  held_until timestamptz,
  created_at timestamptz not null default now(),
  keyed_at timestamptz,
  linked_at timestamptz
);
create index if not exists wpp_creations_of_integration on public.wpp_creations (integration_id);
create index if not exists wpp_creations_of_organization on public.wpp_creations (organization_id);
alter table public.wpp_creations enable row level security;

-- What a client's idempotency key stands for: a request, and the creation that it began or joined, if it needed one.
create table if not exists public.wpp_idempotency_keys (
  organization_id uuid not null,
  key text not null,
  request jsonb not null,
  creation_id uuid references public.wpp_creations (id) on delete cascade,
  created_at timestamptz not null default now(),
  primary key (organization_id, key)
);
alter table public.wpp_idempotency_keys enable row level security;

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

-- Whether whoever looked last at a number's session saw a phone linked.
create or replace function public.wpp_seen_connected(p_number public.messenger_integrations) returns boolean
language sql stable set search_path = ''
as $$
  select exists (
    select from public.whatsapp_sessions s
    where s.organization_id = p_number.organization_id and s.status = 'connected'
      and s.session_name = 'wpp_' || (p_number.settings ->> 'wppAccountNumber'))
$$;

-- The number that a request to create is about: the named one; else one that works, else one to bring to work:
-- disconnected, or never finished. The row of an unfinished additional number, which has its own id and no key yet, has
-- to be named.
create or replace function public.wpp_chosen_number(p_organization_id uuid, p_session text, p_integration_id uuid)
returns public.messenger_integrations
language sql stable set search_path = ''
as $$
  select i.* from public.messenger_integrations i
  where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp' and i.provider = 'wpp'
    and case
      when p_session is not null
        then p_session in (i.settings ->> 'wppAccountNumber', 'wpp_' || (i.settings ->> 'wppAccountNumber'))
      when p_integration_id is not null then i.id = p_integration_id
      else coalesce(i.settings ->> 'wppSubOrgId', '') = '' or i.settings ->> 'wppApiKey' <> '' end
  order by public.wpp_works(i) desc, i.is_primary desc nulls last, i.created_at, i.id limit 1
$$;

-- Begins, resumes or joins the creation that a request means. Answers {now_ms, outcome, ...}; outcome is
--   existing         `number` has its credentials: nothing to create;
--   begun            the caller asks the platform for `platform_id` and saves the credentials as `creation`;
--   busy             another caller is at `creation`, for at most `wait_ms` more;
--   mismatch         the idempotency key was used with another request;
--   unknown          the organisation has no such number;
--   no_organization  the user has none.
-- `p_intention`: use (the organisation's number, else a first one), additional, replacement, or revival: a replacement
-- that nobody asked for, of a number whose key `p_rejected` the platform no longer takes, where nothing that works can
-- be lost by it.
-- `p_session` or `p_integration_id` names a number; without, it is the organisation's own choice.
-- `p_joined` is the creation the caller has waited for: once that is finished, its number is the answer.
-- `p_holder` names the attempt: repeating a call with it repeats the answer.
create or replace function public.wpp_begin_creation(
  p_user_id uuid, p_intention text, p_holder uuid, p_lease_ms integer,
  p_session text default null, p_integration_id uuid default null, p_joined uuid default null,
  p_idempotency_key text default null, p_request jsonb default '{}', p_rejected text default null)
returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_organization uuid;
  v_key public.wpp_idempotency_keys;
  v_creation public.wpp_creations;
  v_number public.messenger_integrations;
  v_works boolean;
  v_existing uuid;
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

  delete from public.wpp_idempotency_keys k
  where k.organization_id = v_organization and k.created_at < v_now - interval '24 hours';
  select * into v_key from public.wpp_idempotency_keys k
  where k.organization_id = v_organization and k.key = p_idempotency_key;
  if found and v_key.request <> p_request then
    return v_answer || '{"outcome": "mismatch"}';
  end if;

  -- The creation that this request has waited for, or began before.
  select c.* into v_creation from public.wpp_creations c
  join public.messenger_integrations i on i.id = c.integration_id and i.organization_id = c.organization_id
  where c.id = coalesce(p_joined, v_key.creation_id) and c.organization_id = v_organization;

  if v_creation.id is null and p_intention = 'additional' then
    -- Without a key, the intention is the same until a phone is linked: a number that waits for that is not doubled,
    -- nor is one that waits for its credentials.
    select c.* into v_creation from public.wpp_creations c
    join public.messenger_integrations i on i.id = c.integration_id and i.organization_id = c.organization_id
    where p_idempotency_key is null and c.organization_id = v_organization and c.linked_at is null
      and (c.intention = 'additional'
          and (c.keyed_at is null or i.is_active and c.created_at > v_now - interval '24 hours')
        or c.intention = 'first' and c.keyed_at is null and coalesce(i.settings ->> 'wppApiKey', '') = '')
      and not public.wpp_seen_connected(i)
    order by c.created_at desc limit 1;
  elsif v_creation.id is null then
    v_number := public.wpp_chosen_number(v_organization, p_session, p_integration_id);
    if v_number.id is null and coalesce(p_session, p_integration_id::text) is not null then
      return v_answer || '{"outcome": "unknown"}';
    end if;
    v_works := public.wpp_works(v_number);
    -- What was begun for it and not finished.
    select c.* into v_creation from public.wpp_creations c
    where c.integration_id = v_number.id and c.organization_id = v_organization and c.keyed_at is null
    order by c.created_at desc limit 1;
    if v_works and p_intention = 'use' then
      v_existing := v_number.id;
    elsif p_intention = 'revival' then
      -- Somebody else may have brought another key, or switched the number off; and what was linked once, by whoever's
      -- account, is for a person to give up, unless somebody has asked for that already.
      if not v_works or v_number.settings ->> 'wppApiKey' is distinct from p_rejected
        or v_creation.forced is not true and (
          public.wpp_seen_connected(v_number)
          or not exists (
            select from public.wpp_creations c where c.integration_id = v_number.id
            having count(c.keyed_at) > 0 and count(c.linked_at) = 0))
      then
        v_existing := v_number.id;
      end if;
    elsif p_intention = 'replacement' and v_creation.id is null then
      -- So soon after another it is the repetition of a request whose end was not heard of.
      select c.* into v_creation from public.wpp_creations c
      where c.integration_id = v_number.id and c.organization_id = v_organization
        and c.forced and c.keyed_at > v_now - interval '1 minute'
      order by c.keyed_at desc limit 1;
    end if;
  end if;

  if v_creation.keyed_at is not null then
    v_existing := v_creation.integration_id;
  elsif v_creation.id is null and v_existing is null then
    v_creation.platform_id := case when p_intention = 'additional' then public.wpp_new_platform_id(v_organization)
      else coalesce(nullif(v_number.settings ->> 'wppSubOrgId', ''), v_organization::text) end;
    if v_number.id is null then
      insert into public.messenger_integrations
        (organization_id, messenger_type, provider, name, is_active, is_primary, webhook_key, settings)
      values (v_organization, 'whatsapp', 'wpp', 'WhatsApp (WPP)', false, false, gen_random_uuid()::text,
        public.wpp_sub_org_id(v_organization, v_creation.platform_id))
      returning * into v_number;
    end if;
    insert into public.wpp_creations (organization_id, integration_id, intention, forced, platform_id)
    values (v_organization, v_number.id,
      case when p_intention = 'additional' then 'additional' when v_works then 'replacement' else 'first' end,
      p_intention = 'replacement', v_creation.platform_id)
    returning * into v_creation;
  end if;

  if p_idempotency_key is not null then
    insert into public.wpp_idempotency_keys as k (organization_id, key, request, creation_id)
    values (v_organization, p_idempotency_key, p_request,
      case when v_existing is null or v_creation.keyed_at is not null then v_creation.id end)
    on conflict (organization_id, key) do update set creation_id = coalesce(excluded.creation_id, k.creation_id);
  end if;
  if v_existing is not null then
    return v_answer || jsonb_build_object('outcome', 'existing', 'number', public.wpp_number(v_existing));
  end if;
  if v_creation.held_until > v_now and v_creation.holder <> p_holder then
    return v_answer || jsonb_build_object('outcome', 'busy', 'creation', v_creation.id,
      'wait_ms', public.wpp_unix_ms(v_creation.held_until) - public.wpp_unix_ms(v_now));
  end if;
  update public.wpp_creations c
  set holder = p_holder, held_until = v_now + p_lease_ms * interval '1 millisecond',
      forced = c.forced or p_intention = 'replacement'
  where c.id = v_creation.id
  returning c.* into v_creation;
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
  select c.* into v_creation from public.wpp_creations c
  join public.messenger_integrations i on i.id = c.integration_id and i.organization_id = c.organization_id
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
    -- What was said of the key before is no longer true, also where it is the same key.
    update public.wpp_token_leases l
    set failure = null, retry_at = null
    where l.integration_id = v_creation.integration_id;
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
