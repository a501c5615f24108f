//! The ways in which platforms of different versions behave, within the contract.

use serde_json::Value;

/// How the platform behaves; the default is the well-behaved platform of the contract.
///
/// Changed at run time by [`Platform::behave`](super::Platform::behave).
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// What an organization that has a key gets when it asks again.
    pub repeated_create: RepeatedCreate,
    /// What the answer to a create says as `status`.
    pub create_status: FieldValue,
    /// How often `/auth/token` refuses a key made from now on before the key is active.
    pub activate_after: u32,
    /// Seconds from a token's issue to its `exp`; may be negative.
    pub token_lifetime_s: i64,
    /// What the answer with a token says as `expiresIn`, whatever its `exp` is.
    pub expires_in: FieldValue,
    /// Tokens that are not JWTs: no `exp` can be read from them.
    pub opaque_tokens: bool,
    /// Which of a key's tokens are accepted.
    pub accepted_tokens: AcceptedTokens,
    /// How many polls of the status or QR a started session still answers with `starting`; at 0, it shows the QR at once.
    pub polls_until_qr: u32,
    /// How many milliseconds a started session needs until it shows its QR.
    pub ms_until_qr: i64,
    /// The form of a QR.
    pub qr_form: QrForm,
}

impl Default for Behavior {
    fn default() -> Self {
        Self {
            repeated_create: RepeatedCreate::SameKey,
            create_status: FieldValue::Truth,
            activate_after: 0,
            token_lifetime_s: 3600,
            expires_in: FieldValue::Truth,
            opaque_tokens: false,
            accepted_tokens: AcceptedTokens::Unexpired,
            polls_until_qr: 0,
            ms_until_qr: 0,
            qr_form: QrForm::Text,
        }
    }
}

/// What a field of an answer says.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// What is so.
    Truth,
    /// The field is absent.
    Nothing,
    /// This, of whatever type.
    This(Value),
}

/// What an organization that has a key gets when it asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatedCreate {
    /// Its key and its session, unless the key was revoked.
    SameKey,
    /// A new key for its session; the old key is dead.
    NewKey,
    /// A new key for a new session; the old ones stay as they are.
    NewClient,
}

/// Which of a key's tokens are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptedTokens {
    /// All that have not expired.
    Unexpired,
    /// The one issued last, until it expires.
    Newest,
}

/// The form of a QR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QrForm {
    /// The pairing text, `2@...`.
    Text,
    /// A PNG as `data:image/png;base64,...`.
    DataUrl,
    /// A PNG as bare base64.
    Base64,
}
