//! Why a caller is not let in.

use std::time::Duration;

/// The shortest time between two fetches of the keys that verify access tokens, and so the longest until a new key is taken.
pub(crate) const KEY_REFETCH_INTERVAL: Duration = Duration::from_secs(30);

/// The check that a caller has not passed. Its text is for the log, and holds no part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no `Authorization` header, or it is blank.
    #[error("the request carries no access token")]
    Missing,
    /// The header is not `Bearer` and one JWT, or a claim is not of its type.
    #[error("the access token cannot be read")]
    Malformed,
    /// The header is longer than any token that is read.
    #[error("the access token is too long")]
    TooLong,
    /// The token names an algorithm that its key does not have.
    #[error("the algorithm of the access token is not accepted")]
    WrongAlgorithm,
    /// The project has no such key, or does not show it yet.
    #[error("the access token is signed with an unknown key")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("the signature of the access token is wrong")]
    BadSignature,
    /// `aud` is not that of a signed-in user.
    #[error("the audience of the access token is not a signed-in user's")]
    WrongAudience,
    /// `iss` is none of those that the configuration names.
    #[error("the issuer of the access token is not one that SUPABASE_JWT_ISSUER names")]
    WrongIssuer,
    /// `role` is not that of a signed-in user: a server's key, or a visitor's.
    #[error("the role of the access token is not a signed-in user's")]
    WrongRole,
    /// `exp` has passed.
    #[error("the access token has expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("the access token is not valid yet")]
    NotYetValid,
    /// `sub` is not a user's id.
    #[error("the subject of the access token is not a user's id")]
    WrongSubject,
    /// No key is known and none can be had now; says nothing about the token.
    #[error("the keys that verify access tokens cannot be fetched")]
    KeysUnavailable,
}
