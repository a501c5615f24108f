//! `postgrest` 1.6 asks for reqwest 0.11, which is years behind and has open advisories. What it uses of it is the same
//! today, so that it is given today's: one HTTP client is compiled, and the query that it builds is a request of that client.

pub use reqwest::*;
