-- messenger_integrations messenger_type
create unique index on messenger_integrations (organization_id, messenger_type) where is_active;
-- messenger_integrations messenger_type
alter table messenger_integrations add unique (organization_id, messenger_type);
-- messenger_integrations organization_id
create unique index on messenger_integrations (organization_id) include (id);
-- messenger_integrations serial_numbers
create sequence serial_numbers;
revoke all on sequence serial_numbers from service_role;
alter table messenger_integrations add serial_number bigint not null default nextval('serial_numbers');
-- messenger_integrations is_primary
alter table messenger_integrations drop is_primary;
-- messenger_integrations is_active
alter table messenger_integrations drop is_active;
-- messenger_integrations created_at
alter table messenger_integrations drop created_at;
-- messenger_integrations updated_at
alter table messenger_integrations drop updated_at;
-- messenger_integrations name
alter table messenger_integrations drop name;
-- messenger_integrations webhook_key
alter table messenger_integrations drop webhook_key;
-- whatsapp_sessions last_qr_at
alter table whatsapp_sessions drop last_qr_at;
-- messenger_integrations settings
alter table messenger_integrations alter settings drop default, alter settings type json;
-- messenger_integrations settings
alter table messenger_integrations alter settings drop default, alter settings type text;
-- messenger_integrations provider
create type messenger_provider as enum ('green_api', 'bot');
alter table messenger_integrations alter provider type messenger_provider using provider::messenger_provider;
-- messenger_integrations provider
alter table messenger_integrations add constraint known_provider check (provider in ('green_api', 'bot'));
alter table organizations add constraint known_provider check (name <> '');
-- whatsapp_sessions status
create type session_status as enum ('disconnected', 'qr_issued', 'connected');
alter table whatsapp_sessions drop constraint whatsapp_sessions_status_check, alter status drop default,
  alter status type session_status using status::session_status;
-- whatsapp_sessions status
alter table whatsapp_sessions drop constraint whatsapp_sessions_status_check,
  add constraint known_status check (status in ('connected', 'disconnected', 'qr_issued'));
-- messenger_integrations colour
alter table messenger_integrations add colour text not null;
-- whatsapp_sessions device
alter table whatsapp_sessions add device text not null;
-- messenger_integrations id
alter table messenger_integrations drop id, add id bigint generated always as identity primary key;
-- messenger_integrations organization_id
alter table messenger_integrations drop constraint messenger_integrations_organization_id_fkey, alter organization_id type text;
-- messenger_integrations
alter table messenger_integrations rename to numbers;
create view messenger_integrations as select * from numbers;
-- messenger_integrations id
alter table messenger_integrations drop constraint messenger_integrations_pkey;
-- whatsapp_sessions session_name
alter table whatsapp_sessions drop constraint whatsapp_sessions_session_name_key;
create index on whatsapp_sessions (session_name);
-- whatsapp_sessions session_name
alter table whatsapp_sessions drop constraint whatsapp_sessions_session_name_key;
create unique index on whatsapp_sessions (session_name) where status = 'connected';
-- whatsapp_sessions session_name
alter table whatsapp_sessions drop constraint whatsapp_sessions_session_name_key, add unique (session_name, organization_id);
-- profiles organization_id
alter table profiles drop organization_id;
-- profiles id
alter table profiles rename id to user_id;
-- whatsapp_sessions
revoke all on whatsapp_sessions from service_role;
-- messenger_integrations
revoke insert, update on messenger_integrations from service_role;
-- whatsapp_sessions session_name
alter table whatsapp_sessions alter session_name type varchar(63);
-- whatsapp_sessions last_qr_b64
alter table whatsapp_sessions alter last_qr_b64 type varchar(65535);
