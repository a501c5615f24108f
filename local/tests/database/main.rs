//! The database alone: the SQL functions, the migrations, and tables of other people's making.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod creations;
mod harness;
mod hide_settings;
mod leases;
mod migrate;
mod migrations;
mod numbers;
mod shapes;
mod torture;
