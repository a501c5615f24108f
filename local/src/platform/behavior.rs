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
    /// How many looks (at status or QR) a started session still sees `starting`; 0 asks for the QR at once.
    pub looks_until_qr: u32,
    /// How many milliseconds a started session needs until it shows its QR.
    pub ms_until_qr: i64,
    /// Writes its status words in capitals.
    pub in_capitals: bool,
    /// The field of an answer that holds its QR.
    pub qr_field: QrField,
    /// The form of a QR.
    pub qr_form: QrForm,
    /// Leaves a QR that is not ready out of the answer, instead of a null.
    pub omit_unready_qr: bool,
    /// What a start answers.
    pub start_answer: StartAnswer,
    /// Takes a webhook only for a session that is started. Whether the real platform does so is unknown.
    pub webhook_needs_start: bool,
}

impl Behavior {
    pub(super) fn write(&self, word: &str) -> String {
        if self.in_capitals { word.to_uppercase() } else { word.to_owned() }
    }
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
            looks_until_qr: 0,
            ms_until_qr: 0,
            in_capitals: false,
            qr_field: QrField::Qr,
            qr_form: QrForm::Text,
            omit_unready_qr: false,
            start_answer: StartAnswer::Status,
            webhook_needs_start: false,
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

/// The field of an answer that holds its QR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QrField {
    /// `{"qr"}`
    Qr,
    /// `{"qrCode"}`
    CamelCode,
    /// `{"qrcode"}`
    LowerCode,
    /// `{"data": {"qr"}}`
    Nested,
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

/// What a start answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAnswer {
    /// `{"status": "starting"}`, or `"connected"` for a linked number.
    Status,
    /// The same word as `{"state"}`.
    State,
    /// `{"status"}` together with the QR.
    Qr,
    /// The QR alone.
    QrAlone,
    /// This word for `starting`: `ready` or `pending`.
    Word(&'static str),
}
