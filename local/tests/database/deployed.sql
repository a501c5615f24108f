-- A database as it was deployed before us: columns of its owner's, few of them `not null`, one WhatsApp session per
-- organization, row-level security here and there, a policy that waits for it.

create table organizations (
  id uuid primary key default gen_random_uuid(),
  name text,
  plan text default 'free'
);
create table profiles (
  id uuid primary key,
  organization_id uuid references organizations (id),
  full_name text
);
create table messenger_integrations (
  id uuid primary key default gen_random_uuid(),
  organization_id uuid not null references organizations (id) on delete cascade,
  messenger_type text not null,
  provider text,
  name text,
  is_active boolean default true,
  is_primary boolean default false,
  webhook_key text unique,
  settings jsonb,
  colour text default 'green',
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);
create policy "members read" on messenger_integrations for select to authenticated using (true);
create table whatsapp_sessions (
  id uuid primary key default gen_random_uuid(),
  organization_id uuid unique references organizations (id),
  session_name text unique,
  status text default 'disconnected' check (status in ('connected', 'disconnected', 'qr_issued', 'pairing')),
  last_qr_b64 text,
  last_qr_at timestamptz,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);
alter table whatsapp_sessions enable row level security;
create policy "members look" on whatsapp_sessions for select to authenticated using (true);

-- The second organization has two primary numbers, and two of another messenger; the third has two without a date.
insert into organizations (id, name, plan) values
  ('00000000-0000-0000-0000-000000000001', 'one', 'paid'),
  ('00000000-0000-0000-0000-000000000002', 'two', null),
  ('00000000-0000-0000-0000-000000000003', 'three', 'free');
insert into profiles values
  ('10000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', 'Ada'),
  ('10000000-0000-0000-0000-000000000002', null, null);
insert into messenger_integrations
  (id, organization_id, messenger_type, provider, is_primary, settings, created_at) values
  ('20000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', 'whatsapp', 'wpp', true,
    '{"wppApiKey": "k", "wppAccountNumber": "1", "greeting": "hello"}', '2026-01-01'),
  ('20000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000002', 'whatsapp', 'wpp', true,
    '{"wppAccountNumber": "2"}', '2026-02-02'),
  ('20000000-0000-0000-0000-000000000003', '00000000-0000-0000-0000-000000000002', 'whatsapp', 'wpp', true,
    null, '2026-01-01'),
  ('20000000-0000-0000-0000-000000000004', '00000000-0000-0000-0000-000000000002', 'whatsapp', 'wpp', null,
    '{}', '2025-01-01'),
  ('20000000-0000-0000-0000-000000000005', '00000000-0000-0000-0000-000000000002', 'telegram', 'bot', true,
    '{}', '2026-03-03'),
  ('20000000-0000-0000-0000-000000000008', '00000000-0000-0000-0000-000000000002', 'telegram', 'bot', true,
    '{}', '2026-04-04'),
  ('20000000-0000-0000-0000-000000000006', '00000000-0000-0000-0000-000000000003', 'whatsapp', 'wpp', true,
    '{}', null),
  ('20000000-0000-0000-0000-000000000007', '00000000-0000-0000-0000-000000000003', 'whatsapp', 'wpp', true,
    '{}', null);
insert into whatsapp_sessions (organization_id, session_name, status, updated_at) values
  ('00000000-0000-0000-0000-000000000001', 'wpp_1', 'connected', '2026-01-01'),
  ('00000000-0000-0000-0000-000000000002', 'wpp_2', null, null);
