-- The tables that the three functions share with the rest of the product. Existing tables are checked. If
-- messenger_integrations.organization_id has no index, it gets one; columns, constraints, policies and rights stay as they are.
-- Missing tables are created.

set lock_timeout = '5s';

-- If the functions cannot use an existing table, this block stops with one sentence before anything is created. The probe inserts
-- and updates rows in the real tables as the functions do, and is always rolled back.
do $preflight$
declare
  v_need record;
  v_organization uuid;
  v_table text := 'profiles';
  v_values jsonb;
  v_row uuid;
  v_step record;
  v_message text;
  v_column text;
  v_constraint text;
begin
  if not exists (select from pg_roles r where r.rolname = 'service_role') then
    raise exception 'The role service_role is missing: this is not the database of a Supabase project.';
  end if;

  for v_need in
    select t.*, c.oid, c.relkind, c.relowner,
      c.relrowsecurity and not (select r.rolbypassrls from pg_roles r where r.rolname = 'service_role') as hides_rows
    from (values
      ('profiles', 'id', 'uuid', 'select'),
      ('messenger_integrations', 'id', 'uuid', 'select,insert,update'),
      ('whatsapp_sessions', 'session_name', null, 'select,insert,update')) t (name, key, type, rights)
    join pg_class c on c.oid = to_regclass('public.' || t.name)
  loop
    if v_need.relkind <> 'r' then
      raise exception '% must be an ordinary table for the WhatsApp functions.', v_need.name;
    elsif v_need.hides_rows then
      raise exception '% has row-level security, which service_role must bypass.', v_need.name;
    end if;
    for v_step in select r as word from unnest(string_to_array(v_need.rights, ',')) r loop
      if not has_table_privilege('service_role', v_need.oid, v_step.word) then
        raise exception 'service_role may not % % (column %): grant it that.', v_step.word, v_need.name, v_need.key;
      end if;
    end loop;
    if not exists (
      select from pg_index x join pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
      where x.indrelid = v_need.oid and x.indisunique and x.indpred is null and x.indnkeyatts = 1
        and a.attname = v_need.key and format_type(a.atttypid, null) = coalesce(v_need.type, format_type(a.atttypid, null)))
    then
      raise exception 'Column %.% must be unique%.', v_need.name, v_need.key, coalesce(' and of type ' || v_need.type, '');
    end if;
    if v_need.name = 'messenger_integrations' and not pg_has_role(current_user, v_need.relowner, 'usage') and not exists (
      select from pg_index x join pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
      where x.indrelid = v_need.oid and x.indisvalid and x.indpred is null and a.attname = 'organization_id')
    then
      raise exception 'Column messenger_integrations.organization_id has no index, and only the owner of the table can create one.';
    end if;
    -- The probe below would not notice text columns here: PostgreSQL casts on insert, but not in comparisons.
    select a.attname, t.type into v_step
    from (values ('settings', 'jsonb'), ('organization_id', 'uuid')) t (name, type)
    join pg_attribute a on a.attrelid = v_need.oid and a.attname = t.name and format_type(a.atttypid, null) <> t.type;
    if found then
      raise exception 'Column %.% must be of type %.', v_need.name, v_step.attname, v_step.type;
    end if;
  end loop;

  if to_regclass('public.organizations') is not null then
    execute 'select o.id from public.organizations o limit 1' into v_organization;
  end if;
  if v_organization is null then
    raise notice 'There is no organization yet: whether rows of the WhatsApp functions fit into existing tables was not tried.';
    return;
  end if;

  begin
    set local role service_role;
    if to_regclass('public.profiles') is not null then
      perform p.organization_id = v_organization from public.profiles p limit 1;
    end if;

    -- Two numbers of one organization.
    v_table := 'messenger_integrations';
    if to_regclass('public.messenger_integrations') is not null then
      for v_step in select n::text as session from generate_series(1, 2) n loop
        v_values := jsonb_build_object('messenger_type', 'whatsapp', 'provider', 'wpp', 'name', 'WhatsApp (WPP)',
          'webhook_key', gen_random_uuid());
        insert into public.messenger_integrations
          (organization_id, messenger_type, provider, name, is_active, is_primary, webhook_key, settings, created_at, updated_at)
        select v_organization, r.messenger_type, r.provider, r.name, true, false, r.webhook_key,
          '{}'::jsonb, clock_timestamp(), clock_timestamp()
        from jsonb_populate_record(null::public.messenger_integrations, v_values) r
        returning id into v_row;
        update public.messenger_integrations i
        set settings = i.settings || jsonb_build_object('wppApiKey', v_row, 'wppAccountNumber', v_row),
            is_active = true, is_primary = false, updated_at = clock_timestamp()
        where i.id = v_row;
      end loop;
    end if;

    -- A session in each state: in its own row, or in the organization's only row if the table allows just one.
    v_table := 'whatsapp_sessions';
    if to_regclass('public.whatsapp_sessions') is not null then
      for v_step in select s as status from unnest('{connected,disconnected,qr_issued,pairing}'::text[]) s loop
        v_values := jsonb_build_object('session_name', 'wpp_' || repeat('0', 60), 'status', v_step.status,
          'last_qr_b64', repeat('2', 65536));
        insert into public.whatsapp_sessions (organization_id, session_name, status, last_qr_b64, last_qr_at, updated_at)
        select v_organization, r.session_name, r.status, r.last_qr_b64, clock_timestamp(), clock_timestamp()
        from jsonb_populate_record(null::public.whatsapp_sessions, v_values) r
        on conflict do nothing;
        update public.whatsapp_sessions s
        set session_name = r.session_name, status = r.status, last_qr_b64 = r.last_qr_b64, last_qr_at = clock_timestamp(),
            updated_at = clock_timestamp()
        from jsonb_populate_record(null::public.whatsapp_sessions, v_values) r
        where s.ctid = (
          select o.ctid from public.whatsapp_sessions o where o.organization_id = v_organization
          order by o.session_name = r.session_name desc limit 1);
      end loop;
    end if;
    raise exception using errcode = 'WPPOK';
  exception
    when sqlstate 'WPPOK' then null;
    when others then
      get stacked diagnostics v_message = message_text, v_column = column_name, v_constraint = constraint_name;
      if v_constraint <> '' then
        select string_agg(a.attname, ', ') into v_column
        from pg_attribute a
        where a.attrelid = to_regclass('public.' || v_table) and a.attnum = any (coalesce(
          (select c.conkey from pg_constraint c where c.conrelid = a.attrelid and c.conname = v_constraint),
          (select x.indkey::int2[] from pg_index x where x.indexrelid = to_regclass('public.' || quote_ident(v_constraint)))));
      elsif v_column = '' and sqlstate in ('22001', '22P02') then
        -- For these errors PostgreSQL does not name the column, so each value is tried on its own.
        for v_step in select key, jsonb_build_object(key, value) as value from jsonb_each(v_values) loop
          begin
            execute format('select to_jsonb(jsonb_populate_record(null::public.%I, $1))', v_table) using v_step.value;
          exception when others then v_column := v_step.key;
          end;
        end loop;
      end if;
      raise exception 'Table % cannot hold what the WhatsApp functions write%: %',
        v_table, coalesce(', column ' || nullif(v_column, ''), ''), v_message;
  end;
end
$preflight$;

do $$
declare
  v_table text;
begin
  if to_regclass('public.organizations') is null then
    create table public.organizations (
      id uuid primary key default gen_random_uuid(),
      name text,
      created_at timestamptz not null default now()
    );
    v_table := concat_ws(',', v_table, 'organizations');
  end if;

  if to_regclass('public.profiles') is null then
    create table public.profiles (
      id uuid primary key,
      organization_id uuid references public.organizations (id) on delete set null
    );
    create index wpp_profiles_by_organization on public.profiles (organization_id);
    v_table := concat_ws(',', v_table, 'profiles');
  end if;

  if to_regclass('public.messenger_integrations') is null then
    create table public.messenger_integrations (
      id uuid primary key default gen_random_uuid(),
      organization_id uuid not null references public.organizations (id) on delete cascade,
      messenger_type text not null,
      provider text not null,
      name text,
      is_active boolean not null default true,
      is_enabled boolean not null default true,
      is_primary boolean not null default false,
      priority integer not null default 0,
      webhook_key text default gen_random_uuid()::text,
      settings jsonb not null default '{}',
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now()
    );
    v_table := concat_ws(',', v_table, 'messenger_integrations');
  end if;

  if to_regclass('public.whatsapp_sessions') is null then
    create table public.whatsapp_sessions (
      id uuid primary key default gen_random_uuid(),
      organization_id uuid not null references public.organizations (id) on delete cascade,
      session_name text not null unique,
      status text not null check (status in ('connected', 'disconnected', 'qr_issued', 'pairing')),
      last_qr_b64 text,
      last_qr_at timestamptz,
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now()
    );
    create index wpp_sessions_by_organization on public.whatsapp_sessions (organization_id);
    v_table := concat_ws(',', v_table, 'whatsapp_sessions');
  end if;

  -- Only service_role may use the tables created here.
  foreach v_table in array coalesce(string_to_array(v_table, ','), '{}') loop
    execute format('alter table public.%I enable row level security', v_table);
    execute format('revoke all on table public.%I from public, anon, authenticated', v_table);
    execute format('grant select, insert, update, delete on table public.%I to service_role', v_table);
  end loop;

  -- Every query filters by organization first.
  if not exists (
    select from pg_index x join pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
    where x.indrelid = 'public.messenger_integrations'::regclass and x.indisvalid and x.indpred is null
      and a.attname = 'organization_id')
  then
    create index wpp_numbers_of_organization on public.messenger_integrations (organization_id);
  end if;
end
$$;

notify pgrst, 'reload schema';
reset lock_timeout;
