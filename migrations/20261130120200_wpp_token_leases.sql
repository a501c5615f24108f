-- Grants the lease to refresh a number's token, and saves the result of the refresh. Called by TokenRow.
-- Each function returns {now_ms, outcome, ...}, and its holder may repeat the call. The outcome is `gone` if the organization does not
-- have the number, and `unreadable` if the settings cannot be read; then nothing is changed.

set lock_timeout = '5s';

-- One row for each number that ever got a lease. `held_until` is the end of the lease, even if its holder dies. `retry_at` is the
-- end of the cooldown after a refresh that failed, or after the platform rejected a new token. `key_digest` identifies the API key
-- that the row is about. `token_digest` identifies the token that the last refresh saved, at `saved_at`. There is
-- no foreign key, because deleting a number must never wait.
create table if not exists public.wpp_token_leases (
  integration_id uuid,
  organization_id uuid,
  holder uuid not null,
  held_until timestamptz not null,
  failure text,
  retry_at timestamptz,
  key_digest text,
  token_digest text,
  saved_at timestamptz,
  primary key (integration_id, organization_id)
);
create index if not exists wpp_token_leases_by_organization on public.wpp_token_leases (organization_id);
alter table public.wpp_token_leases enable row level security;

-- Returns a number's settings, and locks its row until the transaction ends. SQL null if the organization has no such number; JSON
-- null if the settings cannot be read. The lock orders claims, saves and releases.
create or replace function wpp_internal.lock_settings(p_organization_id uuid, p_integration_id uuid) returns jsonb
language sql volatile set search_path = ''
as $$
  select coalesce(wpp_internal.settings(i.settings), 'null')
  from public.messenger_integrations i
  where i.id = p_integration_id and i.organization_id = p_organization_id
  for no key update
$$;

-- Returns the outcome if lock_settings found no usable settings; otherwise null.
create or replace function wpp_internal.refusal(settings jsonb) returns text
language sql immutable
return case when settings is null then 'gone' when settings = 'null' then 'unreadable' end;

-- Returns the milliseconds until a lease or a cooldown ends; null if it has ended. See max_clock_skew.
create or replace function wpp_internal.ms_left(p_until timestamptz, p_now timestamptz) returns bigint
language sql stable
return case when p_until > p_now and p_until <= p_now + wpp_internal.max_clock_skew()
  then ceil(extract(epoch from p_until - p_now) * 1000)::bigint end;

-- Asks for the lease, to replace the token `p_old_token` (null if none is stored). `p_is_rejected`: the platform rejected
-- that token. The outcome is one of these:
--   granted   The caller must refresh the token, with the API key in `number`.
--   changed   The row holds another token than `p_old_token`, or none. `number` is the row.
--   busy      Another holder is refreshing with this API key, for at most `wait_ms` more.
--   cooldown  The last refresh with this API key failed, and its cooldown is not over; `failure` says why. It is `token_rejected`
--             if the rejected token was saved less than a minute ago: the platform would reject a newer token too.
create or replace function public.wpp_claim_refresh(
  p_organization_id uuid, p_integration_id uuid, p_holder uuid, p_lease_ms integer, p_old_token text default null,
  p_is_rejected boolean default false)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_settings jsonb := wpp_internal.lock_settings(p_organization_id, p_integration_id);
  v_digest text := md5(wpp_internal.api_key(v_settings));
  v_now timestamptz := clock_timestamp();
  v_lease public.wpp_token_leases;
begin
  if wpp_internal.refusal(v_settings) is not null then
    return wpp_internal.answer(wpp_internal.refusal(v_settings));
  elsif wpp_internal.token(v_settings) is distinct from p_old_token then
    return wpp_internal.answer('changed', jsonb_build_object('number', wpp_internal.number(p_integration_id)));
  end if;

  select * into v_lease from public.wpp_token_leases l
  where l.integration_id = p_integration_id and l.organization_id = p_organization_id;
  -- A lease that was taken with another API key neither blocks this request nor gives it a failure.
  if v_lease.holder <> p_holder and v_lease.key_digest is not distinct from v_digest then
    if wpp_internal.ms_left(v_lease.held_until, v_now) is not null then
      return wpp_internal.answer('busy', jsonb_build_object('wait_ms', wpp_internal.ms_left(v_lease.held_until, v_now)));
    elsif p_is_rejected and v_lease.token_digest = md5(p_old_token) and v_lease.saved_at > v_now - interval '1 minute' then
      v_lease.failure := 'token_rejected';
      v_lease.retry_at := v_now + interval '30 seconds';
      update public.wpp_token_leases l
      set failure = v_lease.failure, retry_at = v_lease.retry_at, token_digest = null, saved_at = null
      where l.integration_id = p_integration_id and l.organization_id = p_organization_id;
    end if;
    if wpp_internal.ms_left(v_lease.retry_at, v_now) is not null then
      return wpp_internal.answer('cooldown', jsonb_build_object('failure', v_lease.failure));
    end if;
  end if;

  insert into public.wpp_token_leases as l (integration_id, organization_id, holder, held_until, key_digest)
  values (p_integration_id, p_organization_id, p_holder, v_now + p_lease_ms * interval '1 millisecond', v_digest)
  on conflict (integration_id, organization_id) do update
  set holder = excluded.holder, held_until = excluded.held_until, failure = null, retry_at = null, key_digest = excluded.key_digest,
      token_digest = null, saved_at = null;
  return wpp_internal.answer('granted', jsonb_build_object('number', wpp_internal.number(p_integration_id)));
end
$$;

-- Saves a refreshed token and ends the lease. Saves only if the lease was not taken over, and the row still holds `p_old_token` (or
-- already `p_token`) and the API key that fetched the new token. Only the two token settings are merged; the others stay. The outcome
-- is one of these:
--   saved    The row holds the token.
--   changed  The row's token or API key is another one, or the lease was taken over. `number` is the row.
create or replace function public.wpp_save_token(
  p_organization_id uuid, p_integration_id uuid, p_holder uuid, p_api_key text,
  p_token text, p_expires_at_ms bigint, p_old_token text default null)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_settings jsonb := wpp_internal.lock_settings(p_organization_id, p_integration_id);
  v_outcome text := 'changed';
begin
  if wpp_internal.refusal(v_settings) is not null then
    return wpp_internal.answer(wpp_internal.refusal(v_settings));
  end if;

  -- The platform may return the same token with a new expiry.
  if wpp_internal.api_key(v_settings) = p_api_key
    and (wpp_internal.token(v_settings) is not distinct from p_old_token or wpp_internal.token(v_settings) = p_token)
    and exists (
      select from public.wpp_token_leases l
      where l.integration_id = p_integration_id and l.organization_id = p_organization_id and l.holder = p_holder)
  then
    update public.messenger_integrations i
    set settings = v_settings || jsonb_build_object('wppJwtToken', p_token, 'wppJwtExpiresAt', p_expires_at_ms),
        updated_at = clock_timestamp()
    where i.id = p_integration_id;
    v_outcome := 'saved';
  elsif wpp_internal.token(v_settings) = p_token then
    v_outcome := 'saved';
  end if;

  update public.wpp_token_leases l
  set held_until = clock_timestamp(), failure = null, retry_at = null,
      token_digest = case when v_outcome = 'saved' then md5(p_token) end,
      saved_at = case when v_outcome = 'saved' then clock_timestamp() end
  where l.integration_id = p_integration_id and l.organization_id = p_organization_id and l.holder = p_holder;
  return wpp_internal.answer(v_outcome, jsonb_build_object('number', wpp_internal.number(p_integration_id)));
end
$$;

-- Ends the lease after a refresh that failed. Until `p_cooldown_ms` have passed, only the same holder or a request with another API
-- key gets a lease. The outcome is one of these:
--   saved    The failure is saved.
--   changed  The failure no longer matters: since the claim, the API key has changed or the lease was taken over. `number` is the row.
create or replace function public.wpp_release_refresh(
  p_organization_id uuid, p_integration_id uuid, p_holder uuid, p_failure text, p_cooldown_ms integer)
returns jsonb
language plpgsql set search_path = '' set lock_timeout = '2s'
as $$
declare
  v_settings jsonb := wpp_internal.lock_settings(p_organization_id, p_integration_id);
  v_lease public.wpp_token_leases;
begin
  if wpp_internal.refusal(v_settings) is not null then
    return wpp_internal.answer(wpp_internal.refusal(v_settings));
  end if;
  update public.wpp_token_leases l
  set held_until = clock_timestamp(), failure = p_failure,
      retry_at = clock_timestamp() + p_cooldown_ms * interval '1 millisecond', token_digest = null, saved_at = null
  where l.integration_id = p_integration_id and l.organization_id = p_organization_id and l.holder = p_holder
  returning * into v_lease;
  if found and v_lease.key_digest is not distinct from md5(wpp_internal.api_key(v_settings)) then
    return wpp_internal.answer('saved');
  end if;
  return wpp_internal.answer('changed', jsonb_build_object('number', wpp_internal.number(p_integration_id)));
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
