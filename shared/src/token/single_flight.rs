//! One refresh of a number's token at a time in a sandbox that works on many requests at once. The lease in the database
//! orders sandboxes; within one, requests take turns, and only the first has to ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::store::TokenState;

/// The permit of one row, with the row as its last holder left it: whoever has an older one looks at that before asking.
pub type Flight = tokio::sync::Mutex<Option<TokenState>>;

/// The permit in somebody's hand.
pub(crate) type Permit = OwnedMutexGuard<Option<TokenState>>;

/// The permits of a sandbox, by row. Cheap to clone, and no cache: a row is forgotten with the last request about it.
#[derive(Clone, Debug, Default)]
pub struct SingleFlight(Arc<Mutex<HashMap<Uuid, Weak<Flight>>>>);

impl SingleFlight {
    /// The one permit of this row, for as long as anybody has it.
    pub fn of(&self, row: Uuid) -> Arc<Flight> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&row).and_then(Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::default();
        flights.insert(row, Arc::downgrade(&flight));
        flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_one_permit_and_another_row_another() {
        let flights = SingleFlight::default();
        let flight = flights.of(Uuid::from_u128(1));
        let _permit = flight.try_lock().unwrap();
        assert!(flights.of(Uuid::from_u128(1)).try_lock().is_err());
        assert!(flights.of(Uuid::from_u128(2)).try_lock().is_ok());
    }

    #[test]
    fn a_row_that_nobody_works_on_is_forgotten() {
        let flights = SingleFlight::default();
        (0..100).for_each(|row| drop(flights.of(Uuid::from_u128(row))));
        assert_eq!(flights.0.lock().unwrap().len(), 1);
    }
}
