//! The three functions as a caller meets them: each test starts a stack of its own and sends events of API Gateway.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod advice;
mod configuration;
mod contract;
mod cors;
mod crashes;
mod create;
mod creation;
mod crowd;
mod deadlines;
mod edge;
mod failures;
mod faults;
mod keys;
mod linking;
mod log;
mod openapi;
mod prefetch;
mod qr;
mod recreate;
mod refresh;
mod repair;
mod rotation;
mod secrets;
mod snapshot;
mod status;
mod tenancy;
mod tls;
mod token;
mod voices;
