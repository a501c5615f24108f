-- Which number a request is about, and what was last seen of it.
-- Every function that the functions call takes the organisation (or the verified user it follows from) and touches that
-- organisation's rows only; wpp_number is for those.

-- Milliseconds since 1970 by the database's clock: the one clock that every sandbox shares.
create or replace function public.wpp_now_ms() returns bigint
language sql volatile set search_path = ''
as $$ select floor(extract(epoch from clock_timestamp()) * 1000)::bigint $$;

create or replace function public.wpp_unix_ms(at timestamptz) returns bigint
language sql immutable set search_path = ''
as $$ select floor(extract(epoch from at) * 1000)::bigint $$;

-- A row's settings: an object, also where the column holds nothing or something else.
create or replace function public.wpp_settings(p_settings jsonb) returns jsonb
language sql immutable set search_path = ''
as $$ select case jsonb_typeof(p_settings) when 'object' then p_settings else '{}' end $$;

-- Whether a number is in use and has its credentials.
create or replace function public.wpp_works(p_number public.messenger_integrations) returns boolean
language sql immutable set search_path = ''
as $$
  select coalesce(p_number.is_active, false) and count(*) = 2
  from jsonb_each(public.wpp_settings(p_number.settings)) s
  where s.key in ('wppApiKey', 'wppAccountNumber') and jsonb_typeof(s.value) = 'string' and s.value <> '""'
$$;

-- A number as the functions see it: the row's identity, its settings, the last seen state of its session, when its
-- credentials came (where that is known), and when a phone was first linked with them. In plpgsql, which may name tables
-- that later migrations bring.
create or replace function public.wpp_number(p_integration_id uuid) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select jsonb_build_object(
      'integration_id', i.id,
      'organization_id', i.organization_id,
      'settings', public.wpp_settings(i.settings),
      'keyed_at_ms', public.wpp_unix_ms(c.keyed_at),
      'linked_at_ms', public.wpp_unix_ms(c.linked_at),
      'seen', (
        select jsonb_build_object(
          'status', coalesce(s.status, ''),
          'qr', s.last_qr_b64,
          'qr_at_ms', public.wpp_unix_ms(s.last_qr_at),
          'at_ms', coalesce(public.wpp_unix_ms(s.updated_at), 0))
        from public.whatsapp_sessions s
        where s.organization_id = i.organization_id
          and s.session_name = 'wpp_' || (i.settings ->> 'wppAccountNumber')))
    from public.messenger_integrations i
    left join lateral (
      select k.keyed_at, k.linked_at from public.wpp_creations k
      where k.integration_id = i.id and k.keyed_at is not null
      order by k.keyed_at desc limit 1) c on true
    where i.id = p_integration_id);
end
$$;

-- The number a user means: the named session, else the named row, else the primary, else any active one. A number that
-- has no credentials is meant only where there is no other. A session may be named as the platform does or as whatsapp_sessions does.
-- Answers {now_ms, organization_id | null, number | null}.
create or replace function public.wpp_find_number(
  p_user_id uuid, p_session text default null, p_integration_id uuid default null)
returns jsonb
language sql stable set search_path = ''
as $$
  with caller as (
    select p.organization_id from public.profiles p where p.id = p_user_id
  ), wanted as (
    select i.id
    from public.messenger_integrations i
    join caller c on c.organization_id = i.organization_id
    where i.messenger_type = 'whatsapp' and i.provider = 'wpp' and i.is_active
      and (p_session is null
        or p_session in (i.settings ->> 'wppAccountNumber', 'wpp_' || (i.settings ->> 'wppAccountNumber')))
      and (p_session is not null or p_integration_id is null or i.id = p_integration_id)
    order by public.wpp_works(i) desc, i.is_primary desc nulls last, i.created_at, i.id
    limit 1
  )
  select jsonb_build_object(
    'now_ms', public.wpp_now_ms(),
    'organization_id', (select c.organization_id from caller c),
    'number', (select public.wpp_number(w.id) from wanted w))
$$;

-- Mirrors what was seen of a session, at `p_at_ms` or later, into whatsapp_sessions. A row that was written since stands:
-- a slow poll does not undo what the webhook has told. Answers whether there is a row for the session now.
-- Where the table still carries UNIQUE (organization_id), its only row stays with a session that is still
-- one of the organisation's numbers, and moves on from one that is not.
create or replace function public.wpp_remember_session(
  p_organization_id uuid, p_session text, p_status text, p_at_ms bigint, p_qr text default null)
returns boolean
language plpgsql set search_path = ''
as $$
declare
  v_name text := 'wpp_' || p_session;
begin
  if not exists (
    select from public.messenger_integrations i
    where i.organization_id = p_organization_id and i.messenger_type = 'whatsapp' and i.provider = 'wpp'
      and i.settings ->> 'wppAccountNumber' = p_session
  ) then
    return false;
  end if;

  if p_status = 'connected' then
    update public.wpp_creations c
    set linked_at = clock_timestamp()
    from public.messenger_integrations i
    where c.organization_id = p_organization_id and c.linked_at is null and c.keyed_at is not null
      and i.id = c.integration_id and i.settings ->> 'wppAccountNumber' = p_session;
  end if;

  for attempt in 1..2 loop
    update public.whatsapp_sessions s
    set status = p_status,
        last_qr_at = case
          when p_qr is null then null
          when p_qr is distinct from s.last_qr_b64 then clock_timestamp()
          else s.last_qr_at end,
        last_qr_b64 = p_qr,
        updated_at = clock_timestamp()
    where s.organization_id = p_organization_id and s.session_name = v_name
      and coalesce(public.wpp_unix_ms(s.updated_at), 0) <= p_at_ms;
    if found then return true; end if;
    if exists (
      select from public.whatsapp_sessions s
      where s.organization_id = p_organization_id and s.session_name = v_name
    ) then
      return true;
    end if;

    insert into public.whatsapp_sessions (organization_id, session_name, status, last_qr_b64, last_qr_at)
    values (p_organization_id, v_name, p_status, p_qr, case when p_qr is not null then clock_timestamp() end)
    on conflict do nothing;
    if found then return true; end if;

    update public.whatsapp_sessions s
    set session_name = v_name
    where s.organization_id = p_organization_id
      and s.session_name <> v_name
      and not exists (select from public.whatsapp_sessions t where t.session_name = v_name)
      and not exists (
        select from public.messenger_integrations i
        where i.organization_id = p_organization_id and i.is_active
          and s.session_name = 'wpp_' || (i.settings ->> 'wppAccountNumber'));
    if not found then return false; end if;
  end loop;
  return false;
end
$$;
