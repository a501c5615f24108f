-- The tables that the three functions share with the rest of the product. A table that is there already is checked and left
-- as it is: its columns, constraints, policies and rights are its owner's. One that is missing is made.

set lock_timeout = '5s';

-- Stops before anything is made, with one sentence, where a table that is there is not what the functions need.
do $preflight$
declare
  v_need record;
  v_type text;
  v_class pg_class;
  v_bypasses boolean;
  v_word text;
  v_name text;
begin
  select r.rolbypassrls or r.rolsuper into v_bypasses from pg_roles r where r.rolname = 'service_role';
  if v_bypasses is null then
    raise exception 'The role service_role is missing: this is not the database of a Supabase project.';
  end if;

  for v_need in
    select * from (values
      ('profiles', '{id}', 'select'),
      ('messenger_integrations', '{id}', 'select,insert,update'),
      ('whatsapp_sessions', '{session_name}', 'select,insert,update')) t (table_name, key, rights)
    where to_regclass('public.' || t.table_name) is not null
  loop
    select * into v_class from pg_class c where c.oid = to_regclass('public.' || v_need.table_name);
    if v_class.relkind <> 'r' then
      raise exception '% must be an ordinary table for the WhatsApp functions.', v_need.table_name;
    end if;
    foreach v_word in array string_to_array(v_need.rights, ',') loop
      if not has_table_privilege('service_role', v_class.oid, v_word) then
        raise exception 'service_role may not % % (column %): grant it that.',
          v_word, v_need.table_name, v_need.key;
      end if;
    end loop;
    if v_class.relrowsecurity and not v_bypasses then
      raise exception '% has row-level security, which service_role must bypass.', v_need.table_name;
    end if;
  end loop;

  -- Columns, their types, and the shortest text that they must hold; null where none is too long.
  for v_need in
    select * from (values
      ('profiles', 'id', '{uuid}', 0),
      ('profiles', 'organization_id', '{uuid}', 0),
      ('messenger_integrations', 'id', '{uuid}', 0),
      ('messenger_integrations', 'organization_id', '{uuid}', 0),
      ('messenger_integrations', 'messenger_type', '{text,character varying,enum}', 8),
      ('messenger_integrations', 'provider', '{text,character varying,enum}', 3),
      ('messenger_integrations', 'name', '{text,character varying}', 14),
      ('messenger_integrations', 'is_active', '{boolean}', 0),
      ('messenger_integrations', 'is_primary', '{boolean}', 0),
      ('messenger_integrations', 'webhook_key', '{text,character varying,uuid}', 36),
      ('messenger_integrations', 'settings', '{jsonb}', 0),
      ('messenger_integrations', 'created_at', '{timestamp with time zone}', 0),
      ('messenger_integrations', 'updated_at', '{timestamp with time zone}', 0),
      ('whatsapp_sessions', 'organization_id', '{uuid}', 0),
      ('whatsapp_sessions', 'session_name', '{text,character varying}', 64),
      ('whatsapp_sessions', 'status', '{text,character varying,enum}', 12),
      ('whatsapp_sessions', 'last_qr_b64', '{text,character varying}', null),
      ('whatsapp_sessions', 'last_qr_at', '{timestamp with time zone}', 0),
      ('whatsapp_sessions', 'updated_at', '{timestamp with time zone}', 0)
    ) c (table_name, column_name, types, shortest)
    where to_regclass('public.' || c.table_name) is not null
  loop
    select case when t.typtype = 'e' then 'enum' else format_type(a.atttypid, null) end into v_type
    from pg_attribute a join pg_type t on t.oid = a.atttypid
    where a.attrelid = to_regclass('public.' || v_need.table_name) and a.attname = v_need.column_name
      and a.attnum > 0 and not a.attisdropped;
    if not found then
      raise exception 'Column %.% is missing: the WhatsApp functions need it, of type %.',
        v_need.table_name, v_need.column_name, (v_need.types::text[])[1];
    elsif v_type <> all (v_need.types::text[]) then
      raise exception 'Column %.% is of type %: the WhatsApp functions need %.',
        v_need.table_name, v_need.column_name, v_type, (v_need.types::text[])[1];
    elsif exists (
      select from pg_attribute a
      where a.attrelid = to_regclass('public.' || v_need.table_name) and a.attname = v_need.column_name
        and format_type(a.atttypid, null) = 'character varying'
        and a.atttypmod > 4 and (v_need.shortest is null or a.atttypmod - 4 < v_need.shortest))
    then
      raise exception 'Column %.% is too short for what the WhatsApp functions write.',
        v_need.table_name, v_need.column_name;
    end if;
  end loop;

  -- Words that enum types must have.
  for v_need in
    select * from (values
      ('messenger_integrations', 'messenger_type', 'whatsapp'),
      ('messenger_integrations', 'provider', 'wpp'),
      ('whatsapp_sessions', 'status', 'connected'),
      ('whatsapp_sessions', 'status', 'disconnected'),
      ('whatsapp_sessions', 'status', 'qr_issued'),
      ('whatsapp_sessions', 'status', 'pairing')
    ) w (table_name, column_name, word)
    where exists (
      select from pg_attribute a join pg_type t on t.oid = a.atttypid and t.typtype = 'e'
      where a.attrelid = to_regclass('public.' || w.table_name) and a.attname = w.column_name
        and not exists (select from pg_enum e where e.enumtypid = t.oid and e.enumlabel = w.word))
  loop
    raise exception 'Column %.% has no word ''%'' in its type: add it.',
      v_need.table_name, v_need.column_name, v_need.word;
  end loop;

  -- What a default takes from a sequence, service_role must be allowed to take.
  for v_need in
    select c.relname as table_name, a.attname as column_name
    from pg_attrdef d
    join pg_class c on c.oid = d.adrelid
    join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
    join pg_depend p on p.classid = 'pg_attrdef'::regclass and p.objid = d.oid and p.refclassid = 'pg_class'::regclass
    join pg_class s on s.oid = p.refobjid
    where c.oid in (to_regclass('public.messenger_integrations'), to_regclass('public.whatsapp_sessions'))
      and case when s.relkind = 'S' then not has_sequence_privilege('service_role', s.oid, 'usage') end
  loop
    raise exception 'service_role may not use the sequence of column %.%: grant it that.',
      v_need.table_name, v_need.column_name;
  end loop;

  -- Rows are found by these columns alone.
  for v_need in
    select * from (values
      ('profiles', 'id'), ('messenger_integrations', 'id'), ('whatsapp_sessions', 'session_name')
    ) k (table_name, column_name)
    where to_regclass('public.' || k.table_name) is not null and not exists (
      select from pg_index x join pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
      where x.indrelid = to_regclass('public.' || k.table_name) and x.indisunique and x.indpred is null
        and x.indnkeyatts = 1 and a.attname = k.column_name)
  loop
    raise exception 'Column %.% must be unique.', v_need.table_name, v_need.column_name;
  end loop;

  if to_regclass('public.messenger_integrations') is not null then
    if not exists (
      select from pg_class c
      where c.oid = 'public.messenger_integrations'::regclass and pg_has_role(current_user, c.relowner, 'usage'))
      and not exists (
        select from pg_index x join pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
        where x.indrelid = 'public.messenger_integrations'::regclass and x.indisvalid and x.indpred is null
          and a.attname = 'organization_id')
    then
      raise exception 'Column messenger_integrations.organization_id has no index, and only the owner of the table can make one.';
    end if;

    -- Two numbers of one organisation, as they will be written, into a table of the same shape.
    create temporary table wpp_probe (like public.messenger_integrations
      including defaults including constraints including generated including identity including indexes);
    begin
      foreach v_word in array '{1,2}'::text[] loop
        insert into pg_temp.wpp_probe
          (organization_id, messenger_type, provider, name, is_active, is_primary, webhook_key, settings,
           created_at, updated_at)
        select r.organization_id, r.messenger_type, r.provider, r.name, r.is_active, r.is_primary, r.webhook_key,
          r.settings, now(), now()
        from jsonb_populate_record(null::public.messenger_integrations, jsonb_build_object(
          'organization_id', '00000000-0000-0000-0000-000000000000', 'messenger_type', 'whatsapp', 'provider', 'wpp',
          'name', 'WhatsApp (WPP)', 'is_active', true, 'is_primary', false, 'webhook_key', gen_random_uuid(),
          'settings', jsonb_build_object('wppApiKey', v_word, 'wppAccountNumber', v_word))) r;
      end loop;
    exception
      when not_null_violation then
        get stacked diagnostics v_name = column_name;
        -- A trigger may fill it, which a table of the same shape does not have.
        if not exists (
          select from pg_trigger t
          where t.tgrelid = 'public.messenger_integrations'::regclass and not t.tgisinternal
            and t.tgtype & 7 = 7)
        then
          raise exception 'Column messenger_integrations.% may not be null and has no default: give it one.', v_name;
        end if;
      when check_violation then
        get stacked diagnostics v_name = constraint_name;
        raise exception 'Constraint % of messenger_integrations does not allow a number of provider ''wpp''.', v_name;
      when unique_violation then
        get stacked diagnostics v_name = pg_exception_detail;
        raise exception 'messenger_integrations could not hold a second number of an organisation: %', v_name;
    end;
    drop table pg_temp.wpp_probe;
  end if;

  if to_regclass('public.whatsapp_sessions') is not null then
    create temporary table wpp_probe (like public.whatsapp_sessions
      including defaults including constraints including generated including identity);
    foreach v_word in array '{connected,disconnected,qr_issued,pairing}'::text[] loop
      insert into pg_temp.wpp_probe (organization_id, session_name, status, updated_at)
      select r.organization_id, r.session_name, r.status, now()
      from jsonb_populate_record(null::public.whatsapp_sessions, jsonb_build_object(
        'organization_id', gen_random_uuid(), 'session_name', 'wpp_' || v_word, 'status', v_word)) r;
    end loop;
    drop table pg_temp.wpp_probe;
  end if;
exception
  when not_null_violation then
    get stacked diagnostics v_name = column_name;
    raise exception 'Column whatsapp_sessions.% may not be null and has no default: give it one.', v_name;
  when check_violation then
    get stacked diagnostics v_name = constraint_name;
    raise exception 'Constraint % of whatsapp_sessions.status does not allow the word ''%''.', v_name, v_word;
end
$preflight$;

do $$
begin
  if to_regclass('public.organizations') is null then
    create table public.organizations (
      id uuid primary key default gen_random_uuid(),
      name text,
      created_at timestamptz not null default now()
    );
    alter table public.organizations enable row level security;
    revoke all on table public.organizations from public, anon, authenticated;
    grant select, insert, update, delete on table public.organizations to service_role;
  end if;

  if to_regclass('public.profiles') is null then
    create table public.profiles (
      id uuid primary key,
      organization_id uuid references public.organizations (id) on delete set null
    );
    alter table public.profiles enable row level security;
    revoke all on table public.profiles from public, anon, authenticated;
    grant select, insert, update, delete on table public.profiles to service_role;
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
    alter table public.messenger_integrations enable row level security;
    revoke all on table public.messenger_integrations from public, anon, authenticated;
    grant select, insert, update, delete on table public.messenger_integrations to service_role;
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
    alter table public.whatsapp_sessions enable row level security;
    revoke all on table public.whatsapp_sessions from public, anon, authenticated;
    grant select, insert, update, delete on table public.whatsapp_sessions to service_role;
  end if;

  -- Every look-up begins with an organisation.
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
