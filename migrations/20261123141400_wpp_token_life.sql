-- The right to refresh one number's token, and the saving of what the refresh brought.

-- One row per number whose token was ever refreshed. `held_until` ends a lease whose holder died;
-- `retry_at` keeps everybody from asking again at once after a refresh that failed.
create table if not exists public.wpp_token_leases (
  integration_id uuid primary key,
  organization_id uuid not null,
  holder uuid not null,
  held_until timestamptz not null,
  early_retry_at timestamptz not null,
  failure text,
  retry_at timestamptz,
  key_digest text
);
alter table public.wpp_token_leases enable row level security;

-- The token in a number's settings, read as the functions read it: what is no text, or empty, is none.
create or replace function public.wpp_stored_token(p_settings jsonb) returns text
language sql immutable set search_path = ''
as $$
  select nullif(p_settings ->> 'wppJwtToken', '') where jsonb_typeof(p_settings -> 'wppJwtToken') = 'string'
$$;

-- A number's settings, with its row locked until the transaction ends; null where the organisation has no such number.
-- The lock orders claims, saves and releases: what is read after it is not older than any of them that has finished.
create or replace function public.wpp_lock_settings(p_organization_id uuid, p_integration_id uuid) returns jsonb
language sql volatile set search_path = ''
as $$
  select public.wpp_settings(i.settings)
  from public.messenger_integrations i
  where i.id = p_integration_id and i.organization_id = p_organization_id
  for no key update
$$;

-- Asks for the right to replace the token `p_replaced` (null: none is stored) of a number.
-- Answers {now_ms, outcome, number?, wait_ms?, failure?}; outcome is
--   granted  the caller refreshes, with the API key in `number`;
--   moved    the row holds another token by now: it is in `number`;
--   busy     another holder is at it with this key, for at most `wait_ms` more;
--   cooling  the last refresh with this key failed moments ago, with `failure`: not again for `wait_ms`;
--   gone     the organisation has no such number.
-- Repeating a call with the same holder repeats its answer. An early claim is one that can wait.
create or replace function public.wpp_claim_refresh(
  p_organization_id uuid, p_integration_id uuid, p_holder uuid, p_lease_ms integer,
  p_replaced text default null, p_early boolean default false, p_early_retry_ms integer default 30000)
returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_settings jsonb;
  v_lease public.wpp_token_leases;
  v_now timestamptz;
  v_digest text;
  v_answer jsonb;
begin
  v_settings := public.wpp_lock_settings(p_organization_id, p_integration_id);
  v_now := clock_timestamp();
  v_answer := jsonb_build_object('now_ms', public.wpp_unix_ms(v_now));
  if v_settings is null then
    return v_answer || '{"outcome": "gone"}';
  end if;
  v_answer := v_answer || jsonb_build_object('number', public.wpp_number(p_integration_id));
  if public.wpp_stored_token(v_settings) is distinct from p_replaced then
    return v_answer || '{"outcome": "moved"}';
  end if;

  v_digest := md5(v_settings ->> 'wppApiKey');
  select * into v_lease from public.wpp_token_leases l where l.integration_id = p_integration_id for update;
  -- A refresh with another key neither hinders this one nor tells anything about it.
  if found and v_lease.holder <> p_holder and v_lease.key_digest is not distinct from v_digest then
    if v_lease.held_until > v_now then
      return v_answer || jsonb_build_object('outcome', 'busy',
        'wait_ms', public.wpp_unix_ms(v_lease.held_until) - public.wpp_unix_ms(v_now));
    end if;
    if p_early and v_lease.early_retry_at > v_now then
      return v_answer || jsonb_build_object('outcome', 'busy',
        'wait_ms', public.wpp_unix_ms(v_lease.early_retry_at) - public.wpp_unix_ms(v_now));
    end if;
    if v_lease.retry_at > v_now then
      return v_answer || jsonb_build_object('outcome', 'cooling', 'failure', v_lease.failure,
        'wait_ms', public.wpp_unix_ms(v_lease.retry_at) - public.wpp_unix_ms(v_now));
    end if;
  end if;

  insert into public.wpp_token_leases as l (integration_id, organization_id, holder, held_until, early_retry_at, key_digest)
  values (p_integration_id, p_organization_id, p_holder,
    v_now + p_lease_ms * interval '1 millisecond', v_now + p_early_retry_ms * interval '1 millisecond', v_digest)
  on conflict (integration_id) do update
  set holder = excluded.holder, held_until = excluded.held_until, early_retry_at = excluded.early_retry_at,
      failure = null, retry_at = null, key_digest = excluded.key_digest;
  return v_answer || '{"outcome": "granted"}';
end
$$;

-- Saves a refreshed token, if the lease was not taken over meanwhile, the row still holds the token that was
-- to be replaced, and the key that fetched it is still the number's. Our two keys are merged; others are untouched.
-- Answers {now_ms, outcome: saved | superseded | gone, number?}. Safe to repeat.
create or replace function public.wpp_save_token(
  p_organization_id uuid, p_integration_id uuid, p_holder uuid, p_api_key text,
  p_token text, p_expires_at_ms bigint, p_replaced text default null)
returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_settings jsonb;
  v_outcome text := 'superseded';
begin
  v_settings := public.wpp_lock_settings(p_organization_id, p_integration_id);
  if v_settings is null then
    return jsonb_build_object('now_ms', public.wpp_now_ms(), 'outcome', 'gone');
  end if;

  -- The platform may give the same token again: then it is its end that is news.
  if v_settings ->> 'wppApiKey' = p_api_key
    and (public.wpp_stored_token(v_settings) is not distinct from p_replaced
      or public.wpp_stored_token(v_settings) = p_token)
    and exists (
      select from public.wpp_token_leases l
      where l.integration_id = p_integration_id and l.holder = p_holder)
  then
    update public.messenger_integrations i
    set settings = public.wpp_settings(i.settings)
          || jsonb_build_object('wppJwtToken', p_token, 'wppJwtExpiresAt', p_expires_at_ms),
        updated_at = clock_timestamp()
    where i.id = p_integration_id;
    v_outcome := 'saved';
  elsif public.wpp_stored_token(v_settings) = p_token then
    v_outcome := 'saved';
  end if;

  update public.wpp_token_leases l
  set held_until = clock_timestamp(), failure = null, retry_at = null
  where l.integration_id = p_integration_id and l.holder = p_holder;
  return jsonb_build_object('now_ms', public.wpp_now_ms(), 'outcome', v_outcome,
    'number', public.wpp_number(p_integration_id));
end
$$;

-- Gives the right back after a refresh that failed, and has everybody leave it for `p_cool_ms`.
-- Answers {now_ms, outcome, number?}; outcome is
--   noted  the failure stands;
--   moved  it says nothing: the row has got another API key since the claim, or another holder. It is in `number`.
-- Safe to repeat.
create or replace function public.wpp_fail_refresh(
  p_organization_id uuid, p_integration_id uuid, p_holder uuid, p_failure text, p_cool_ms integer)
returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_settings jsonb;
  v_lease public.wpp_token_leases;
  v_answer jsonb := jsonb_build_object('now_ms', public.wpp_now_ms(), 'outcome', 'noted');
begin
  v_settings := public.wpp_lock_settings(p_organization_id, p_integration_id);
  if v_settings is null then
    return v_answer;
  end if;
  update public.wpp_token_leases l
  set held_until = clock_timestamp(), failure = p_failure,
      retry_at = clock_timestamp() + p_cool_ms * interval '1 millisecond'
  where l.integration_id = p_integration_id and l.holder = p_holder
  returning * into v_lease;
  if found and v_lease.key_digest is not distinct from md5(v_settings ->> 'wppApiKey') then
    return v_answer;
  end if;
  return v_answer || jsonb_build_object('outcome', 'moved', 'number', public.wpp_number(p_integration_id));
end
$$;

revoke all on table public.wpp_token_leases from public, anon, authenticated;
grant select, insert, update, delete on table public.wpp_token_leases to service_role;
revoke all on function
  public.wpp_stored_token(jsonb), public.wpp_lock_settings(uuid, uuid),
  public.wpp_claim_refresh(uuid, uuid, uuid, integer, text, boolean, integer),
  public.wpp_save_token(uuid, uuid, uuid, text, text, bigint, text),
  public.wpp_fail_refresh(uuid, uuid, uuid, text, integer)
  from public, anon, authenticated;
grant execute on function
  public.wpp_stored_token(jsonb), public.wpp_lock_settings(uuid, uuid),
  public.wpp_claim_refresh(uuid, uuid, uuid, integer, text, boolean, integer),
  public.wpp_save_token(uuid, uuid, uuid, text, text, bigint, text),
  public.wpp_fail_refresh(uuid, uuid, uuid, text, integer)
  to service_role;
