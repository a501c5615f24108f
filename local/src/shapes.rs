//! The database as others have it: the shared tables, made years before us, in the shapes that were found.

/// The shared tables as most projects have them; every other shape begins with these.
pub const BASE: &str = include_str!("shapes/base.sql");

/// One shape: what it does to [`BASE`].
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What it is like, in a few words.
    pub name: &'static str,
    changes: &'static str,
}

impl Shape {
    /// Returns the SQL that makes its tables in an empty schema.
    pub fn sql(&self) -> String {
        format!("{BASE}{}", self.changes)
    }
}

/// A shape that our migrations must not touch, and the table and column that the refusal has to name.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// The shape.
    pub shape: Shape,
    /// The table at fault.
    pub table: &'static str,
    /// The column at fault, or the column that shows the fault.
    pub column: Option<&'static str>,
}

/// The shape that can falsify a snapshot most easily: the trigger sets `updated_at`, and one row is for all numbers.
pub const TRIGGER_AND_ONE_SESSION_EACH: Shape = shape(
    "a trigger on updated_at, one session each",
    concat!(
        include_str!("shapes/updated_at_trigger.sql"),
        "alter table whatsapp_sessions add unique (organization_id)"
    ),
);

/// The owner makes sure that only one row is primary: an attempt to make another one primary is refused.
pub const ONE_PRIMARY: Shape = shape(
    "one primary by the database",
    "create unique index one_primary on messenger_integrations (organization_id, messenger_type)
             where is_primary",
);

/// Shapes in which everything works.
pub const WORKING: [Shape; 22] = [
    shape(
        "unique by organization and account",
        "create unique index on messenger_integrations (organization_id, (settings ->> 'wppAccountNumber'))",
    ),
    shape("a shorter session_name", "alter table whatsapp_sessions alter session_name type varchar(100)"),
    shape(
        "a column that a trigger fills",
        "alter table messenger_integrations add slug text not null;
           create function slug() returns trigger language plpgsql as
             'begin new.slug := new.id; return new; end';
           create trigger slug before insert on messenger_integrations for each row execute function slug()",
    ),
    shape("as most", ""),
    shape("a trigger on updated_at", include_str!("shapes/updated_at_trigger.sql")),
    TRIGGER_AND_ONE_SESSION_EACH,
    shape("one session each", "alter table whatsapp_sessions add unique (organization_id)"),
    shape("no index on organization_id", "drop index messenger_integrations_organization_id_idx"),
    shape(
        "an enum of states",
        "alter table whatsapp_sessions drop constraint whatsapp_sessions_status_check;
           create type session_status as enum ('disconnected', 'pairing', 'qr_issued', 'connected', 'banned');
           alter table whatsapp_sessions alter status drop default, alter status type session_status
             using status::session_status, alter status set default 'disconnected'",
    ),
    shape(
        "enums of messengers and providers",
        "create type messenger as enum ('telegram', 'whatsapp');
           create type messenger_provider as enum ('green_api', 'wpp', 'bot');
           alter table messenger_integrations
             alter messenger_type type messenger using messenger_type::messenger,
             alter provider type messenger_provider using provider::messenger_provider",
    ),
    shape(
        "webhook_key as a uuid",
        "alter table messenger_integrations alter webhook_key drop default,
             alter webhook_key type uuid using webhook_key::uuid, alter webhook_key set default gen_random_uuid(),
             add unique (webhook_key)",
    ),
    shape(
        "more columns that are never null",
        "alter table messenger_integrations add colour text not null default 'green',
             add channels jsonb not null default '[]';
           alter table whatsapp_sessions add attempts integer not null default 0",
    ),
    shape(
        "columns that may be null, and have no default",
        "alter table messenger_integrations alter provider drop not null, alter name drop not null,
             alter is_active drop not null, alter is_active drop default,
             alter is_enabled drop not null, alter is_primary drop not null, alter is_primary drop default,
             alter webhook_key drop not null, alter webhook_key drop default,
             alter settings drop not null, alter settings drop default,
             alter created_at drop not null, alter updated_at drop not null;
           alter table whatsapp_sessions alter organization_id drop not null, alter status drop not null,
             alter status drop default, alter created_at drop not null, alter updated_at drop not null",
    ),
    shape(
        "varchars",
        "alter table messenger_integrations alter messenger_type type varchar(50), alter provider type varchar(50),
             alter name type varchar(255), alter webhook_key type varchar(255);
           alter table whatsapp_sessions alter session_name type varchar(255), alter status type varchar(50)",
    ),
    shape(
        "row-level security with policies for browsers",
        "alter table profiles enable row level security;
           alter table messenger_integrations enable row level security;
           alter table whatsapp_sessions enable row level security;
           create policy members on messenger_integrations for select to authenticated using (true);
           create policy members on whatsapp_sessions for select to authenticated using (true)",
    ),
    shape(
        "identity and generated columns",
        "alter table messenger_integrations add serial_number bigint generated always as identity,
             add account text generated always as (settings ->> 'wppAccountNumber') stored;
           alter table whatsapp_sessions add serial_number bigint generated by default as identity",
    ),
    shape("sessions without an id", "alter table whatsapp_sessions drop column id, add primary key (session_name)"),
    ONE_PRIMARY,
    shape(
        "no foreign keys",
        "alter table profiles drop constraint profiles_organization_id_fkey;
           alter table messenger_integrations drop constraint messenger_integrations_organization_id_fkey;
           alter table whatsapp_sessions drop constraint whatsapp_sessions_organization_id_fkey",
    ),
    shape(
        "settings that must be an object",
        "alter table messenger_integrations add check (jsonb_typeof(settings) = 'object')",
    ),
    shape(
        "a log of every change",
        "create table changes (at timestamptz default now(), of text, row jsonb);
           create function note_change() returns trigger language plpgsql security definer set search_path = '' as $$
           begin
             insert into public.changes (of, row) values (tg_table_name, to_jsonb(coalesce(new, old)));
             return null;
           end
           $$;
           create trigger note_change after insert or update or delete on messenger_integrations
             for each row execute function note_change();
           create trigger note_change after insert or update or delete on whatsapp_sessions
             for each row execute function note_change()",
    ),
    shape(
        "messages that refer to numbers",
        "create table messages (id bigint generated always as identity primary key,
             integration_id uuid references messenger_integrations (id) on delete cascade,
             session_name text references whatsapp_sessions (session_name) on update cascade on delete cascade)",
    ),
];

/// A table that lacks a column.
macro_rules! without {
    ($table:literal, $column:literal) => {
        refused(
            concat!("no ", $column),
            $table,
            $column,
            concat!("alter table ", $table, " drop column ", $column),
        )
    };
}

/// Shapes that cannot work, and so must not be begun with.
pub const REFUSED: [Refused; 27] = [
    refused(
        "one active row of an organization",
        NUMBERS,
        "messenger_type",
        "create unique index on messenger_integrations (organization_id, messenger_type) where is_active",
    ),
    refused(
        "one row of an organization, by an index with more in it",
        NUMBERS,
        "organization_id",
        "create unique index on messenger_integrations (organization_id) include (id)",
    ),
    refused(
        "a sequence that is not ours to use",
        NUMBERS,
        "serial_numbers",
        "create sequence serial_numbers; revoke all on sequence serial_numbers from service_role;
           alter table messenger_integrations add serial_number bigint not null default nextval('serial_numbers')",
    ),
    without!("messenger_integrations", "is_primary"),
    without!("messenger_integrations", "is_active"),
    without!("messenger_integrations", "created_at"),
    without!("messenger_integrations", "updated_at"),
    without!("messenger_integrations", "name"),
    without!("messenger_integrations", "webhook_key"),
    without!("whatsapp_sessions", "last_qr_at"),
    refused(
        "settings as json",
        NUMBERS,
        "settings",
        "alter table messenger_integrations alter settings drop default, alter settings type json",
    ),
    refused(
        "settings as text",
        NUMBERS,
        "settings",
        "alter table messenger_integrations alter settings drop default, alter settings type text",
    ),
    refused(
        "an enum of providers without wpp",
        NUMBERS,
        "provider",
        "create type messenger_provider as enum ('green_api', 'bot');
         alter table messenger_integrations
           alter provider type messenger_provider using provider::messenger_provider",
    ),
    refused(
        "an enum of states without pairing",
        SESSIONS,
        "status",
        "alter table whatsapp_sessions drop constraint whatsapp_sessions_status_check;
         create type session_status as enum ('disconnected', 'qr_issued', 'connected');
         alter table whatsapp_sessions alter status drop default,
           alter status type session_status using status::session_status",
    ),
    refused(
        "a check of states without pairing",
        SESSIONS,
        "status",
        "alter table whatsapp_sessions drop constraint whatsapp_sessions_status_check,
           add constraint known_status check (status in ('connected', 'disconnected', 'qr_issued'))",
    ),
    refused(
        "a check of providers without wpp",
        NUMBERS,
        "provider",
        "alter table messenger_integrations add constraint known_provider check (provider in ('green_api', 'bot'))",
    ),
    refused(
        "a number's column that nobody fills",
        NUMBERS,
        "colour",
        "alter table messenger_integrations add colour text not null",
    ),
    refused(
        "a session's column that nobody fills",
        SESSIONS,
        "device",
        "alter table whatsapp_sessions add device text not null",
    ),
    refused(
        "one number each",
        NUMBERS,
        "messenger_type",
        "alter table messenger_integrations add unique (organization_id, messenger_type)",
    ),
    refused(
        "bigint ids",
        NUMBERS,
        "id",
        "alter table messenger_integrations drop column id, add id bigint generated always as identity primary key",
    ),
    refused(
        "organization_id as text",
        NUMBERS,
        "organization_id",
        "alter table messenger_integrations drop constraint messenger_integrations_organization_id_fkey,
           alter organization_id type text",
    ),
    Refused {
        shape: shape(
            "numbers as a view",
            "alter table messenger_integrations rename to numbers;
               create view messenger_integrations as select * from numbers",
        ),
        table: NUMBERS,
        column: None,
    },
    refused("profiles by user_id", "profiles", "id", "alter table profiles rename id to user_id"),
    Refused {
        shape: shape(
            "sessions that are not for service_role",
            "revoke all on whatsapp_sessions from service_role",
        ),
        table: SESSIONS,
        column: None,
    },
    Refused {
        shape: shape(
            "numbers that service_role may only read",
            "revoke insert, update on messenger_integrations from service_role",
        ),
        table: NUMBERS,
        column: None,
    },
    refused(
        "a short name of a session",
        SESSIONS,
        "session_name",
        "alter table whatsapp_sessions alter session_name type varchar(16)",
    ),
    refused(
        "a short QR",
        SESSIONS,
        "last_qr_b64",
        "alter table whatsapp_sessions alter last_qr_b64 type varchar(100)",
    ),
];

const NUMBERS: &str = "messenger_integrations";
const SESSIONS: &str = "whatsapp_sessions";

const fn shape(name: &'static str, changes: &'static str) -> Shape {
    Shape { name, changes }
}

const fn refused(
    name: &'static str,
    table: &'static str,
    column: &'static str,
    changes: &'static str,
) -> Refused {
    Refused { shape: shape(name, changes), table, column: Some(column) }
}
