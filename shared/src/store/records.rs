//! The parameters and the results of the SQL functions.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::secret::Secret;
use crate::store::settings::Settings;

/// A key younger than this may be refused because it is not active yet.
const KEY_SETTLES_IN: Duration = Duration::from_secs(60);

/// A WhatsApp number: a row of `messenger_integrations`, with the snapshot of its session.
#[derive(Clone, Debug, Deserialize)]
pub struct Number {
    /// The row's id.
    pub integration_id: Uuid,
    /// The organization that has it.
    pub organization_id: Uuid,
    /// The row's name, as the settings page shows it.
    pub name: Option<String>,
    /// The fields of `settings` that the functions use, if they are valid.
    pub settings: Settings,
    /// Whether `settings` is an object, or text that holds one.
    pub is_readable: bool,
    /// The fields of `settings` whose values are invalid and count as absent.
    pub ignored: Vec<String>,
    /// When the credentials of its session were saved; `None` if another function saved them.
    #[serde(rename = "credentials_saved_at_ms")]
    pub credentials_saved_at: Option<UnixMs>,
    /// When a phone was first seen linked to that session.
    #[serde(rename = "first_connected_at_ms")]
    pub first_connected_at: Option<UnixMs>,
    /// The URL that the platform sends the session's events to; `None` if none is registered.
    pub webhook_url: Option<String>,
    /// Whether `connected` must be saved even if the snapshot seems unchanged.
    pub newly_connected: bool,
    /// Its row of `whatsapp_sessions`.
    pub snapshot: Option<Snapshot>,
}

impl Number {
    /// Whether its API key is so new that it may not be active yet.
    pub fn key_is_new(&self, now: UnixMs) -> bool {
        self.credentials_saved_at.is_some_and(|at| at.until(now) < KEY_SETTLES_IN)
    }
}

/// A session's state, in the frontend's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A phone is connected.
    Connected,
    /// A QR code is ready to be scanned.
    QrIssued,
    /// There is no QR code yet.
    #[serde(rename(deserialize = "pairing"))]
    QrPending,
    /// No phone is connected, and there will be no QR code until the number is linked again.
    Disconnected,
    /// Any other word in `whatsapp_sessions`.
    #[serde(other)]
    Unknown,
}

impl State {
    /// Returns the word for it in `whatsapp_sessions`.
    pub(super) fn stored(self) -> Value {
        if self == Self::QrPending { "pairing".into() } else { json!(self) }
    }
}

/// A session's row of `whatsapp_sessions`.
#[derive(Clone, Deserialize)]
pub struct Snapshot {
    /// The state.
    #[serde(rename = "status")]
    pub state: State,
    /// The last QR.
    pub qr: Option<String>,
    /// When that QR was first seen.
    #[serde(rename = "qr_at_ms")]
    pub qr_at: Option<UnixMs>,
    /// When the row was last written.
    #[serde(rename = "at_ms")]
    pub at: UnixMs,
}

impl fmt::Debug for Snapshot {
    /// Leaves out the QR code: it links the phone that scans it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Which number a request is about; if both are `None`, the organization's default number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct NumberSelector {
    /// The one with this session.
    pub session: Option<String>,
    /// Otherwise the one with this row.
    pub integration_id: Option<Uuid>,
}

impl NumberSelector {
    /// Whether it names a number.
    pub fn is_named(&self) -> bool {
        *self != Self::default()
    }
}

/// What a look-up found.
#[derive(Debug, Deserialize)]
pub struct Found {
    /// The database's time: all sandboxes share its clock.
    #[serde(rename = "now_ms")]
    pub now: UnixMs,
    /// The user's organization.
    pub organization_id: Option<Uuid>,
    /// The number that the request means.
    pub number: Option<Number>,
}

/// What a `wpp-create` request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CreateMode {
    /// The organization's number; a first one if it has none.
    Ensure,
    /// One more number.
    AddNew,
    /// New credentials for the organization's number.
    ForceRecreate,
    /// New credentials for a number whose API key the platform refuses, if no linked phone can be lost.
    Repair,
}

/// A request to create a number or its credentials.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CreateRequest {
    pub(crate) mode: CreateMode,
    #[serde(flatten)]
    pub(crate) selector: NumberSelector,
    /// The API key that the platform refuses, with [`CreateMode::Repair`].
    pub(crate) rejected_key: Option<Secret>,
}

/// One attempt at a creation, as `wpp_begin_creation` takes it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Attempt {
    /// The verified user.
    pub(crate) user_id: Uuid,
    pub(crate) request: CreateRequest,
    /// Identifies the attempt.
    pub(crate) holder: Uuid,
    /// How long no other attempt may work on the same creation.
    pub(crate) lease_ms: i64,
    /// The creation that it has waited for.
    pub(crate) waited_for: Option<Uuid>,
}

/// An attempt's right to work on a creation, until its lease ends.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct CreationLease {
    pub(crate) organization_id: Uuid,
    pub(crate) creation: Uuid,
    pub(crate) holder: Uuid,
}

/// The answer of `wpp_begin_creation`.
#[derive(Debug, Deserialize)]
pub(crate) struct Begun {
    #[serde(rename = "now_ms")]
    pub(crate) now: UnixMs,
    #[serde(flatten)]
    pub(crate) outcome: BeginOutcome,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum BeginOutcome {
    /// Nothing to create.
    Existing { number: Number },
    /// The caller asks the platform with this id, for the given number or for a new one.
    Begun {
        creation: Uuid,
        organization_id: Uuid,
        platform_id: String,
        number: Option<Number>,
        is_usable: bool,
    },
    /// Another attempt works on it, for at most this many milliseconds more.
    Busy { creation: Uuid, wait_ms: u64 },
    /// The organization used too many new platform ids. The next one is allowed in this many milliseconds.
    TooMany { wait_ms: u64 },
    /// The organization has no such number.
    Unknown,
    /// The user belongs to no organization.
    NoOrganization,
}

/// The answer of `wpp_save_credentials`.
#[derive(Debug, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum SaveOutcome {
    /// The row holds them, and is this.
    Saved { number: Box<Number> },
    /// They are for a different session, and the number counts as linked: it is unchanged.
    Kept,
    /// Another attempt has taken over.
    Superseded,
    /// Their session belongs to another organization's number.
    Taken,
    /// The platform had rejected this API key for a number deleted since.
    Rejected,
    /// The organization has no such number.
    Gone,
}

/// The answer of `wpp_assign_platform_id`.
#[derive(Debug, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum AssignOutcome {
    /// The platform is asked with this id from now on.
    Assigned { platform_id: String },
    /// The number counts as linked, and the request did not ask for new credentials.
    Kept,
    /// See [`BeginOutcome::TooMany`].
    TooMany { wait_ms: u64 },
    /// Another attempt has taken over.
    Superseded,
}
