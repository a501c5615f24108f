//! `postgrest` 1.6 depends on reqwest 0.11, which is years old and has open advisories. The parts that it uses are unchanged in the
//! current reqwest, which this crate provides instead. So only one HTTP client is compiled, and `postgrest` builds a request of
//! that client.

pub use reqwest::*;
