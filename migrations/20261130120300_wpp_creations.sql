-- How a number gets its credentials. A creation is recorded here before the platform is asked. After a crash, a retry or a double
-- click, the next request finishes it with the same platform id and so the same session. The row in messenger_integrations is
-- created only after the platform has returned the credentials.

set lock_timeout = '5s';

-- An attempt to get credentials. `kind` is one of these:
--   first       A number for an organization that has none.
--   additional  One more number, with its own platform id.
--   replace     New credentials for `integration_id`, because a person asked for them or the number has none.
--   repair      New credentials for `integration_id`, because the platform refuses its API key. Saved only if no linked phone can
--               be lost.
-- `holder` has the lease until `held_until`. After `finished_at`, `integration_id` is the number that was created or changed.
create table if not exists public.wpp_creations (
  id uuid primary key default gen_random_uuid(),
  organization_id uuid not null,
  kind text not null check (kind in ('first', 'additional', 'replace', 'repair')),
  integration_id uuid,
  platform_id text not null
    check (platform_id = organization_id::text or platform_id ~ ('^' || organization_id || '__wpp__[0-9a-f]{8}$')),
  holder uuid,
  held_until timestamptz,
  created_at timestamptz not null default now(),
  finished_at timestamptz
);
create index if not exists wpp_creations_by_organization on public.wpp_creations (organization_id);
alter table public.wpp_creations enable row level security;

-- The platform ids that an organization has used, for the hourly limit on new ones.
create table if not exists public.wpp_platform_ids (
  platform_id text primary key,
  organization_id uuid not null,
  created_at timestamptz not null default now()
);
create index if not exists wpp_platform_ids_by_organization on public.wpp_platform_ids (organization_id, created_at);
alter table public.wpp_platform_ids enable row level security;

-- Serializes all decisions about an organization's numbers. The lock is never held during a call to the platform.
create or replace function wpp_internal.lock_organization(p_organization_id uuid) returns void
language sql volatile
return pg_advisory_xact_lock(hashtextextended('wpp_creation ' || p_organization_id, 0));

-- Deletes creations that are too old, and the data about numbers that were deleted or given to another organization. A rejected API
-- key of a deleted number is kept for memory_ttl, because the platform may return it again. Used platform ids are kept for an hour
-- for the limit, and as long as a number or a creation uses them.
create or replace function wpp_internal.delete_old_rows(p_organization_id uuid) returns void
language sql volatile set search_path = ''
as $$
  with numbers as (
    select i.id from public.messenger_integrations i where i.organization_id = p_organization_id
  ), creations as (
    delete from public.wpp_creations c
    where c.organization_id = p_organization_id
      and (greatest(c.created_at, c.finished_at, c.held_until) < clock_timestamp() - wpp_internal.memory_ttl()
        or c.integration_id is not null and c.integration_id not in (select id from numbers))
  ), leases as (
    delete from public.wpp_token_leases l
    where l.organization_id = p_organization_id and l.integration_id not in (select id from numbers)
      and (l.failure = 'api_key_rejected' and l.retry_at > clock_timestamp() - wpp_internal.memory_ttl()) is not true
  ), platform_ids as (
    delete from public.wpp_platform_ids p
    where p.organization_id = p_organization_id and p.created_at < clock_timestamp() - interval '1 hour'
      and not exists (select from public.wpp_numbers n where n.organization_id = p_organization_id and n.platform_id = p.platform_id)
      and not exists (select from public.wpp_creations c where c.organization_id = p_organization_id and c.platform_id = p.platform_id)
  )
  delete from public.wpp_numbers n
  where n.organization_id = p_organization_id and n.integration_id not in (select id from numbers)
$$;

-- Returns a new platform id: the organization's id with a random suffix.
create or replace function wpp_internal.new_platform_id(p_organization_id uuid) returns text
language sql volatile
return p_organization_id || '__wpp__' || substr(md5(gen_random_uuid()::text), 1, 8);

-- Returns an unlinked number that add_new can reuse: usable, never linked, and either with the organization's own platform id or
-- added within memory_ttl.
create or replace function wpp_internal.unlinked_number(p_organization_id uuid) returns uuid
language sql stable set search_path = ''
as $$
  select n.id
  from wpp_internal.numbers(p_organization_id) n
  where n.is_usable and n.never_linked
    and (n.platform_id = p_organization_id::text or n.saved_at > clock_timestamp() - wpp_internal.memory_ttl())
  order by n.saved_at desc
  limit 1
$$;

-- Returns the platform id for a number (null for a new number). It is the last id that the platform gave credentials for, otherwise
-- a well-formed id in the row, otherwise the organization's own. With `p_alone`, a new id replaces the organization's own id if
-- another number already has it.
create or replace function wpp_internal.platform_id(p_organization_id uuid, p_integration_id uuid, p_alone boolean) returns text
language sql volatile set search_path = ''
as $$
  with numbers as (
    select n.id, n.api_key is not null and n.session is not null as has_credentials, coalesce(n.platform_id, case
      when wpp_internal.is_own_platform_id(p_organization_id, n.settings ->> 'wppSubOrgId') then n.settings ->> 'wppSubOrgId' end) as own
    from wpp_internal.numbers(p_organization_id) n
  )
  select coalesce(
    (select n.own from numbers n where n.id = p_integration_id),
    case when p_alone and exists (
      select from numbers n
      where n.id is distinct from p_integration_id and n.has_credentials
        and coalesce(n.own, p_organization_id::text) = p_organization_id::text)
      then wpp_internal.new_platform_id(p_organization_id) else p_organization_id::text end)
$$;

-- Reserves a platform id for a call. Returns null, or the milliseconds to wait if the hourly limit is reached. An id that was used
-- before is always within the limit.
create or replace function wpp_internal.use_platform_id(p_organization_id uuid, p_platform_id text) returns bigint
language plpgsql set search_path = ''
as $$
declare
  v_free_at timestamptz;
begin
  if exists (select from public.wpp_platform_ids p where p.platform_id = p_platform_id)
    or exists (select from public.wpp_numbers n where n.organization_id = p_organization_id and n.platform_id = p_platform_id)
  then
    return null;
  end if;
  select p.created_at + interval '1 hour' into v_free_at
  from public.wpp_platform_ids p
  where p.organization_id = p_organization_id and p.created_at > clock_timestamp() - interval '1 hour'
    and p.created_at <= clock_timestamp() + wpp_internal.max_clock_skew()
  order by p.created_at desc
  offset wpp_internal.new_platform_ids_per_hour() - 1 limit 1;
  if found then
    return greatest(ceil(extract(epoch from v_free_at - clock_timestamp()) * 1000)::bigint, 1);
  end if;
  insert into public.wpp_platform_ids (platform_id, organization_id, created_at)
  values (p_platform_id, p_organization_id, clock_timestamp())
  on conflict do nothing;
  return null;
end
$$;

-- Returns the unfinished creation that a request joins. For a number: its latest unfinished creation, except that `ensure` does not
-- join the repair of a usable number. Without a number: a `first` creation, and for add_new also an `additional` one.
create or replace function wpp_internal.creation_to_join(
  p_organization_id uuid, p_integration_id uuid, p_is_usable boolean, p_mode text)
returns public.wpp_creations
language sql stable set search_path = ''
as $$
  select c.*
  from public.wpp_creations c
  where c.organization_id = p_organization_id and c.finished_at is null and case
    when p_integration_id is null then c.kind = 'first' or c.kind = 'additional' and p_mode = 'add_new'
    else c.integration_id = p_integration_id and (c.kind = 'replace' or p_mode <> 'ensure' or not p_is_usable) end
  order by c.created_at desc
  limit 1
$$;

-- Begins, resumes or joins the creation that a request needs. Called by Store::begin_creation.
-- Answers {now_ms, outcome, ...}. The outcome is one of these:
--   existing         `number` already has credentials; there is nothing to create.
--   begun            The caller asks the platform with `platform_id`, and saves the credentials for `creation`. `number` is the
--                    number that gets them, null if it does not exist yet. `is_usable` says whether it already has usable credentials.
--   busy             Another caller works on `creation`, for at most `wait_ms` more.
--   unreadable       The number's settings cannot be read.
--   too_many         The organization used too many new platform ids. The next one is allowed in `wait_ms`.
--   unknown          The organization does not have this number, or no longer has it.
--   no_organization  The user has no organization.
-- `p_request` is {mode, session, integration_id, rejected_key}. The mode is ensure (the organization's number, otherwise a first
-- one), add_new, force_recreate or repair. A repair gets new credentials for a number whose `rejected_key` the platform refuses.
-- `session` or `integration_id` names a number; without them, it is the organization's default number.
-- `p_holder` identifies the attempt: a call may be repeated with it. `p_waited_for` is the creation that the attempt has waited
-- for. Once that is finished, its number is the answer.
create or replace function public.wpp_begin_creation(
  p_user_id uuid, p_request jsonb, p_holder uuid, p_lease_ms integer, p_waited_for uuid default null)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_mode text := p_request ->> 'mode';
  v_organization uuid;
  v_creation public.wpp_creations;
  v_number record;
  v_existing uuid;
  v_platform_id text;
  v_wait_ms bigint;
begin
  select p.organization_id into v_organization from public.profiles p where p.id = p_user_id;
  if v_organization is null then
    return wpp_internal.answer('no_organization');
  end if;
  perform wpp_internal.lock_organization(v_organization);
  -- Locks the rows, so that a deletion waits for this transaction. Skips rows that are being deleted: waiting for them could deadlock.
  perform from public.messenger_integrations i
  where i.organization_id = v_organization for key share skip locked;
  perform wpp_internal.delete_old_rows(v_organization);

  select * into v_creation from public.wpp_creations c where c.id = p_waited_for and c.organization_id = v_organization;
  if v_creation.finished_at is not null then
    v_existing := v_creation.integration_id;
  elsif v_creation.id is null then
    v_existing := case v_mode when 'add_new' then wpp_internal.unlinked_number(v_organization)
      else wpp_internal.choose_number(v_organization, p_request ->> 'session', (p_request ->> 'integration_id')::uuid, false) end;
    select n.id, n.is_usable, n.api_key, n.settings is null as is_unreadable into v_number
    from wpp_internal.numbers(v_organization) n where n.id = v_existing;
    v_existing := null;
    if v_number.id is null and coalesce(p_request ->> 'session', p_request ->> 'integration_id') is not null then
      return wpp_internal.answer('unknown');
    elsif v_number.is_unreadable then
      return wpp_internal.answer('unreadable');
    end if;
    v_creation := wpp_internal.creation_to_join(v_organization, v_number.id, v_number.is_usable, v_mode);
    -- A number that was deactivated or cleared in the meantime is not repaired: a person must decide.
    if v_mode = 'repair' and not (v_number.is_usable and (v_creation.id is not null or v_number.api_key = p_request ->> 'rejected_key'))
      or v_mode in ('ensure', 'add_new') and v_creation.id is null and v_number.is_usable
    then
      v_existing := v_number.id;
    end if;
  end if;

  if v_existing is not null then
    return wpp_internal.answer(case when wpp_internal.number(v_existing) is null then 'unknown' else 'existing' end,
      jsonb_build_object('number', wpp_internal.number(v_existing)));
  end if;
  if v_creation.id is null then
    v_platform_id := case when v_mode = 'add_new' then wpp_internal.new_platform_id(v_organization)
      else wpp_internal.platform_id(v_organization, v_number.id, v_mode <> 'repair') end;
    v_wait_ms := wpp_internal.use_platform_id(v_organization, v_platform_id);
    if v_wait_ms is not null then
      return wpp_internal.answer('too_many', jsonb_build_object('wait_ms', v_wait_ms));
    end if;
    insert into public.wpp_creations (organization_id, kind, integration_id, platform_id)
    values (v_organization,
      case when v_mode = 'add_new' then 'additional' when v_number.id is null then 'first'
        when v_mode = 'repair' then 'repair' else 'replace' end,
      v_number.id, v_platform_id)
    returning * into v_creation;
  elsif v_creation.holder <> p_holder and wpp_internal.ms_left(v_creation.held_until, clock_timestamp()) is not null then
    return wpp_internal.answer('busy', jsonb_build_object('creation', v_creation.id,
      'wait_ms', wpp_internal.ms_left(v_creation.held_until, clock_timestamp())));
  end if;
  update public.wpp_creations c
  set holder = p_holder, held_until = clock_timestamp() + p_lease_ms * interval '1 millisecond',
      -- Credentials that a person asked for are saved, even if they are for another session.
      kind = case when c.kind = 'repair' and v_mode <> 'repair' then 'replace' else c.kind end
  where c.id = v_creation.id;
  return wpp_internal.answer('begun', jsonb_build_object('creation', v_creation.id, 'organization_id', v_organization,
    'platform_id', v_creation.platform_id, 'number', wpp_internal.number(v_creation.integration_id),
    'is_usable', coalesce((select n.is_usable from wpp_internal.numbers(v_organization) n where n.id = v_creation.integration_id), false)));
end
$$;

-- Creates the row of a new number, converting each value to its column's type.
create or replace function wpp_internal.new_number(p_organization_id uuid) returns uuid
language sql volatile set search_path = ''
as $$
  insert into public.messenger_integrations
    (organization_id, messenger_type, provider, name, is_active, is_primary, webhook_key, settings, created_at, updated_at)
  select p_organization_id, r.messenger_type, r.provider, r.name, true, false, r.webhook_key, '{}',
    clock_timestamp(), clock_timestamp()
  from jsonb_populate_record(null::public.messenger_integrations, jsonb_build_object(
    'messenger_type', 'whatsapp', 'provider', 'wpp', 'name', 'WhatsApp (WPP)', 'webhook_key', gen_random_uuid())) r
  returning id
$$;

-- Marks a number's previous session as disconnected, unless another number of the organization uses it.
create or replace function wpp_internal.leave_session(p_organization_id uuid, p_integration_id uuid, p_session text) returns void
language sql volatile set search_path = ''
as $$
  update public.whatsapp_sessions s
  set status = r.status, last_qr_b64 = null, last_qr_at = null, updated_at = clock_timestamp()
  from jsonb_populate_record(null::public.whatsapp_sessions, '{"status": "disconnected"}') r
  where s.session_name = 'wpp_' || p_session and s.organization_id = p_organization_id and not exists (
    select from wpp_internal.numbers(p_organization_id) n where n.id <> p_integration_id and n.session = p_session)
$$;

-- Saves the platform's credentials in the number's row. For a new number, it creates the row, in one transaction with everything
-- that depends on it. Called by Store::save_credentials. Safe to repeat.
-- Answers {now_ms, outcome, number?}. The outcome is one of these:
--   saved       The row holds them.
--   superseded  Another attempt has taken over the creation.
--   rejected    The platform returned the API key that it had rejected for a number deleted since. Only another platform id gets
--               another key.
--   kept        They are for a different session, and the number counts as linked. The row is unchanged; the creation is finished.
--   taken       Their session belongs to another organization's number. Nothing is saved.
--   unreadable  The number's settings cannot be read.
--   gone        The number was deleted; it is not recreated.
create or replace function public.wpp_save_credentials(
  p_organization_id uuid, p_creation uuid, p_holder uuid, p_api_key text, p_session text)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_creation public.wpp_creations;
  v_number uuid;
  v_settings jsonb;
  v_before record;
  v_is_same_session boolean;
  v_outcome text := 'saved';
begin
  perform wpp_internal.lock_organization(p_organization_id);
  select * into v_creation from public.wpp_creations c
  where c.id = p_creation and c.organization_id = p_organization_id and c.holder = p_holder;
  if not found then
    return wpp_internal.answer('superseded');
  end if;

  v_number := v_creation.integration_id;
  if v_creation.finished_at is null then
    if exists (
      select from public.wpp_numbers k
      join public.messenger_integrations i on i.id = k.integration_id and i.organization_id = k.organization_id
      where k.session = p_session and k.organization_id <> p_organization_id)
    then
      return wpp_internal.answer('taken');
    end if;
    -- Another function may have created a row for this session in between. Use that row.
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
    if wpp_internal.refusal(v_settings) is not null then
      return wpp_internal.answer(wpp_internal.refusal(v_settings));
    end if;
    select n.session, n.api_key, n.never_linked,
      n.session = p_session or exists (
        select from public.wpp_numbers k
        where k.integration_id = v_number and k.organization_id = p_organization_id and k.session = p_session) as may_be_repaired
    into v_before
    from wpp_internal.numbers(p_organization_id) n where n.id = v_number;
    v_is_same_session := coalesce(v_before.session = p_session, false);

    if v_creation.kind = 'repair' and not (coalesce(v_before.may_be_repaired, false) or v_before.never_linked) then
      v_outcome := 'kept';
    else
      -- Snapshots come first, in the order in which wpp_save_snapshot locks its rows.
      perform wpp_internal.take_over_snapshot(p_organization_id, p_session);
      if not v_is_same_session then
        perform wpp_internal.leave_session(p_organization_id, v_number, v_before.session);
      end if;
      -- The platform would reject a token of another API key, so the token is removed with its key.
      update public.messenger_integrations i
      set settings = v_settings - 'wppSubOrgId' - (case when v_before.api_key = p_api_key then '{}'
              else '{wppJwtToken,wppJwtExpiresAt}' end)::text[]
            || jsonb_build_object('wppApiKey', p_api_key, 'wppAccountNumber', p_session)
            || case when v_creation.platform_id = p_organization_id::text then '{}'
              else jsonb_build_object('wppSubOrgId', v_creation.platform_id) end,
          is_active = true, updated_at = clock_timestamp()
      where i.id = v_number;
      insert into public.wpp_numbers as n
        (integration_id, organization_id, session, platform_id, credentials_saved_at, first_connected_at)
      values (v_number, p_organization_id, p_session, v_creation.platform_id, clock_timestamp(),
        -- A linked session stays linked; its time is then only a marker.
        case when v_is_same_session and not v_before.never_linked then clock_timestamp() end)
      on conflict (integration_id, organization_id) do update
      set session = excluded.session, platform_id = excluded.platform_id, credentials_saved_at = excluded.credentials_saved_at,
          first_connected_at = case when n.session = excluded.session
            then coalesce(n.first_connected_at, excluded.first_connected_at) end,
          -- The platform must be told again where to report.
          webhook_session = null, webhook_url = null, webhook_tried_at = null;
      -- Clear the cooldown, even if the API key is the same.
      update public.wpp_token_leases l
      set failure = null, retry_at = null
      where l.integration_id = v_number and l.organization_id = p_organization_id;
    end if;
    update public.wpp_creations c
    set integration_id = v_number, finished_at = clock_timestamp(), held_until = null
    where c.id = v_creation.id;
    perform wpp_internal.settle_primary(p_organization_id);
  end if;
  return wpp_internal.answer(case when wpp_internal.number(v_number) is null then 'gone' else v_outcome end,
    jsonb_build_object('number', wpp_internal.number(v_number)));
end
$$;

-- Gives a creation another platform id, for an API key that the platform gives but refuses. Called by Store::assign_platform_id. It
-- may be repeated after a lost answer. Each call assigns another id; only the last one is used. Answers {now_ms, outcome, ...}. The
-- outcome is one of these:
--   assigned    The platform is asked with `platform_id` from now on.
--   kept        The number counts as linked, and the request did not ask for new credentials. The creation is finished.
--   too_many    See wpp_begin_creation.
--   superseded  The attempt no longer holds the creation.
create or replace function public.wpp_assign_platform_id(p_organization_id uuid, p_creation uuid, p_holder uuid)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_creation public.wpp_creations;
  v_platform_id text := wpp_internal.new_platform_id(p_organization_id);
  v_wait_ms bigint;
begin
  perform wpp_internal.lock_organization(p_organization_id);
  select * into v_creation from public.wpp_creations c
  where c.id = p_creation and c.organization_id = p_organization_id and c.holder = p_holder and c.finished_at is null;
  if not found then
    return wpp_internal.answer('superseded');
  elsif v_creation.kind = 'repair' and not exists (
    select from wpp_internal.numbers(p_organization_id) n where n.id = v_creation.integration_id and n.never_linked)
  then
    update public.wpp_creations c set finished_at = clock_timestamp(), held_until = null where c.id = v_creation.id;
    return wpp_internal.answer('kept');
  end if;
  v_wait_ms := wpp_internal.use_platform_id(p_organization_id, v_platform_id);
  if v_wait_ms is not null then
    return wpp_internal.answer('too_many', jsonb_build_object('wait_ms', v_wait_ms));
  end if;
  update public.wpp_creations c set platform_id = v_platform_id where c.id = v_creation.id;
  return wpp_internal.answer('assigned', jsonb_build_object('platform_id', v_platform_id));
end
$$;

-- Ends the lease after a failed attempt, so that the next caller can continue at once. Called by Store::release_creation.
create or replace function public.wpp_release_creation(p_organization_id uuid, p_creation uuid, p_holder uuid)
returns void
language sql volatile set search_path = '' set lock_timeout = '2s'
as $$
  update public.wpp_creations c
  set held_until = null
  where c.id = p_creation and c.organization_id = p_organization_id and c.holder = p_holder
$$;

revoke all on table public.wpp_creations, public.wpp_platform_ids from public, anon, authenticated;
grant select, insert, update, delete on table public.wpp_creations, public.wpp_platform_ids to service_role;
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
