//! The three functions from a caller's point of view. Each test starts its own stack and sends API Gateway events.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

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
