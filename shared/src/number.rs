//! A WhatsApp number: how it is made, what is seen of it, and what a person can do about it.

pub mod creation;
pub mod freshness;
pub mod guess;
pub mod hint;
pub mod qr;
pub mod session;
pub mod view;

#[cfg(test)]
mod tests;
