-- The tables of the CRM that the three functions read and write, for a database that does not have them yet.
-- A deployed table is left exactly as it is: its columns, constraints, policies and row-level security are its owner's.

do $$
begin
  if to_regclass('public.organizations') is null then
    create table public.organizations (
      id uuid primary key default gen_random_uuid(),
      name text,
      created_at timestamptz not null default now()
    );
    alter table public.organizations enable row level security;
  end if;

  if to_regclass('public.profiles') is null then
    create table public.profiles (
      id uuid primary key,
      organization_id uuid references public.organizations (id) on delete set null
    );
    alter table public.profiles enable row level security;
  end if;

  if to_regclass('public.messenger_integrations') is null then
    create table public.messenger_integrations (
      id uuid primary key default gen_random_uuid(),
      organization_id uuid not null references public.organizations (id) on delete cascade,
      messenger_type text not null,
      provider text not null,
      name text,
      is_active boolean not null default true,
      is_primary boolean not null default false,
      webhook_key text default gen_random_uuid()::text,
      settings jsonb not null default '{}',
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now()
    );
    create index messenger_integrations_of_organization on public.messenger_integrations (organization_id);
    alter table public.messenger_integrations enable row level security;
  end if;

  if to_regclass('public.whatsapp_sessions') is null then
    create table public.whatsapp_sessions (
      organization_id uuid not null references public.organizations (id) on delete cascade,
      session_name text not null unique,
      status text not null check (status in ('connected', 'disconnected', 'qr_issued', 'pairing')),
      last_qr_b64 text,
      last_qr_at timestamptz,
      created_at timestamptz not null default now(),
      updated_at timestamptz not null default now()
    );
    alter table public.whatsapp_sessions enable row level security;
  end if;
end
$$;
