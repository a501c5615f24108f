//! A WhatsApp number: its creation, its state, and what a person can do about it.

pub mod advice;
pub mod creation;
pub mod prefetch;
pub mod qr;
pub mod session;
pub mod snapshot;

#[cfg(test)]
mod tests;
