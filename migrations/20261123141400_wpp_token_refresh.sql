-- The right to refresh a number's token, and the saving of what the refresh brought. Called by shared/src/token/store.rs.
-- Every function answers {now_ms, outcome, ...}, may be repeated by the same holder, and for a number that the organisation
-- does not have answers `gone` and changes nothing.

set lock_timeout = '5s';

-- One row per number whose token was ever refreshed. `held_until` ends a lease whose holder died; `retry_at` keeps everybody
-- from asking again at once after a refresh that failed. Without a foreign key: a number is deleted without waiting for us.
create table if not exists public.wpp_token_leases (
  integration_id uuid primary key,
  organization_id uuid not null,
  holder uuid not null,
  held_until timestamptz not null,
  failure text,
  retry_at timestamptz,
  key_digest text
);
create index if not exists wpp_token_leases_by_organization on public.wpp_token_leases (organization_id);
alter table public.wpp_token_leases enable row level security;

-- The token in a number's settings, read as the functions read it: what is no text, or empty, is none.
create or replace function wpp_internal.stored_token(p_settings jsonb) returns text
language sql immutable set search_path = ''
as $$
  select nullif(p_settings ->> 'wppJwtToken', '') where jsonb_typeof(p_settings -> 'wppJwtToken') = 'string'
$$;

-- A number's settings, with its row locked until the transaction ends; null where the organisation has no such number.
-- The lock orders claims, saves and releases: what is read after it is not older than any of them that has finished.
create or replace function wpp_internal.lock_settings(p_organization_id uuid, p_integration_id uuid) returns jsonb
language sql volatile set search_path = ''
as $$
  select wpp_internal.settings(i.settings)
  from public.messenger_integrations i
  where i.id = p_integration_id and i.organization_id = p_organization_id
  for no key update
$$;

-- The milliseconds until a lease or a pause ends; null where it has ended. One that lies more than a minute ahead is
-- another clock's, and has ended too.
create or replace function wpp_internal.ms_left(p_until timestamptz, p_now timestamptz) returns bigint
language sql immutable set search_path = ''
as $$
  select case when p_until > p_now and p_until <= p_now + interval '1 minute'
    then ceil(extract(epoch from p_until - p_now) * 1000)::bigint end
$$;

-- Asks for the lease, to replace the token `p_replaces` (null: none is stored). The outcome is
--   granted  the caller refreshes, with the API key in `number`;
--   moved    the row holds another token by now: it is in `number`;
--   busy     another holder refreshes with this key, for at most `wait_ms` more;
--   cooling  the last refresh with this key failed moments ago, with `failure`;
--   gone.
create or replace function public.wpp_claim_refresh(
  p_organization_id uuid, p_integration_id uuid, p_holder uuid, p_lease_ms integer, p_replaces text default null)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_settings jsonb;
  v_lease public.wpp_token_leases;
  v_now timestamptz;
  v_digest text;
begin
  v_settings := wpp_internal.lock_settings(p_organization_id, p_integration_id);
  v_now := clock_timestamp();
  if v_settings is null then
    return wpp_internal.answer('gone');
  end if;
  if wpp_internal.stored_token(v_settings) is distinct from p_replaces then
    return wpp_internal.answer('moved', jsonb_build_object('number', wpp_internal.number(p_integration_id)));
  end if;

  v_digest := md5(v_settings ->> 'wppApiKey');
  select * into v_lease from public.wpp_token_leases l where l.integration_id = p_integration_id;
  -- A refresh with another key neither hinders this one nor tells anything about it.
  if found and v_lease.holder <> p_holder and v_lease.key_digest is not distinct from v_digest then
    if wpp_internal.ms_left(v_lease.held_until, v_now) is not null then
      return wpp_internal.answer('busy', jsonb_build_object(
        'wait_ms', wpp_internal.ms_left(v_lease.held_until, v_now)));
    elsif wpp_internal.ms_left(v_lease.retry_at, v_now) is not null then
      return wpp_internal.answer('cooling', jsonb_build_object('failure', v_lease.failure));
    end if;
  end if;

  insert into public.wpp_token_leases as l (integration_id, organization_id, holder, held_until, key_digest)
  values (p_integration_id, p_organization_id, p_holder, v_now + p_lease_ms * interval '1 millisecond', v_digest)
  on conflict (integration_id) do update
  set organization_id = excluded.organization_id, holder = excluded.holder, held_until = excluded.held_until,
      failure = null, retry_at = null, key_digest = excluded.key_digest;
  return wpp_internal.answer('granted', jsonb_build_object('number', wpp_internal.number(p_integration_id)));
end
$$;

-- Saves a refreshed token and ends the lease. It is saved only if the lease was not taken over, the row still holds the
-- token that was to be replaced, and the key that fetched it is still the number's. Our two keys are merged; others are
-- untouched. The outcome is
--   saved  the row holds the token;
--   moved  the row holds another one, or waits for one: it is in `number`;
--   gone.
create or replace function public.wpp_save_token(
  p_organization_id uuid, p_integration_id uuid, p_holder uuid, p_api_key text,
  p_token text, p_expires_at_ms bigint, p_replaces text default null)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_settings jsonb;
  v_outcome text := 'moved';
begin
  v_settings := wpp_internal.lock_settings(p_organization_id, p_integration_id);
  if v_settings is null then
    return wpp_internal.answer('gone');
  end if;

  -- The platform may give the same token again: then it is its end that is news.
  if v_settings ->> 'wppApiKey' = p_api_key
    and (wpp_internal.stored_token(v_settings) is not distinct from p_replaces
      or wpp_internal.stored_token(v_settings) = p_token)
    and exists (
      select from public.wpp_token_leases l
      where l.integration_id = p_integration_id and l.holder = p_holder)
  then
    update public.messenger_integrations i
    set settings = wpp_internal.settings(i.settings)
          || jsonb_build_object('wppJwtToken', p_token, 'wppJwtExpiresAt', p_expires_at_ms),
        updated_at = clock_timestamp()
    where i.id = p_integration_id;
    v_outcome := 'saved';
  elsif wpp_internal.stored_token(v_settings) = p_token then
    v_outcome := 'saved';
  end if;

  update public.wpp_token_leases l
  set held_until = clock_timestamp(), failure = null, retry_at = null
  where l.integration_id = p_integration_id and l.holder = p_holder;
  return wpp_internal.answer(v_outcome, jsonb_build_object('number', wpp_internal.number(p_integration_id)));
end
$$;

-- Ends the lease after a refresh that failed; nobody is granted another one for `p_cool_ms`. The outcome is
--   noted  the failure stands;
--   moved  it says nothing: the row has got another key since the claim, or another holder. It is in `number`;
--   gone.
create or replace function public.wpp_release_refresh(
  p_organization_id uuid, p_integration_id uuid, p_holder uuid, p_failure text, p_cool_ms integer)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_settings jsonb;
  v_lease public.wpp_token_leases;
begin
  v_settings := wpp_internal.lock_settings(p_organization_id, p_integration_id);
  if v_settings is null then
    return wpp_internal.answer('gone');
  end if;
  update public.wpp_token_leases l
  set held_until = clock_timestamp(), failure = p_failure,
      retry_at = clock_timestamp() + p_cool_ms * interval '1 millisecond'
  where l.integration_id = p_integration_id and l.holder = p_holder
  returning * into v_lease;
  if found and v_lease.key_digest is not distinct from md5(v_settings ->> 'wppApiKey') then
    return wpp_internal.answer('noted');
  end if;
  return wpp_internal.answer('moved', jsonb_build_object('number', wpp_internal.number(p_integration_id)));
end
$$;

revoke all on table public.wpp_token_leases from public, anon, authenticated;
grant select, insert, update, delete on table public.wpp_token_leases to service_role;
revoke all on all functions in schema wpp_internal from public, anon, authenticated;
grant execute on all functions in schema wpp_internal to service_role;
revoke all on function public.wpp_claim_refresh, public.wpp_save_token, public.wpp_release_refresh
  from public, anon, authenticated;
grant execute on function public.wpp_claim_refresh, public.wpp_save_token, public.wpp_release_refresh to service_role;

notify pgrst, 'reload schema';
reset lock_timeout;
