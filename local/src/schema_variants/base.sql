-- The shared tables as most projects have them, made when Supabase still granted everything by itself.

create table organizations (
  id uuid primary key default gen_random_uuid(),
  name text
);
create table profiles (
  id uuid primary key,
  organization_id uuid references organizations (id)
);
create table messenger_integrations (
  id uuid primary key default gen_random_uuid(),
  organization_id uuid not null references organizations (id) on delete cascade,
  messenger_type text not null,
  provider text not null,
  name text not null,
  is_active boolean not null default true,
  is_enabled boolean not null default true,
  is_primary boolean not null default false,
  priority integer not null default 0,
  webhook_key text not null default gen_random_uuid()::text,
  settings jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index messenger_integrations_organization_id_idx on messenger_integrations (organization_id);
create table whatsapp_sessions (
  id uuid primary key default gen_random_uuid(),
  organization_id uuid not null references organizations (id) on delete cascade,
  session_name text not null unique,
  status text not null default 'disconnected',
  last_qr_b64 text,
  last_qr_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint whatsapp_sessions_status_check check (status in ('connected', 'disconnected', 'qr_issued', 'pairing'))
);
grant all on all tables in schema public to anon, authenticated, service_role;
