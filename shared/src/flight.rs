//! One refresh of a token at a time in a sandbox that works on several requests at once. The lease in the database
//! orders sandboxes; within one, whoever comes second waits here, asks nobody, and hears what the first one heard.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use crate::life::Event;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::wpp::PlatformError;

/// The refreshes under way in one sandbox, by the number's row. Cheap to clone, and no cache: what a refresh came to
/// reaches those who waited for it and nobody after them.
#[derive(Clone, Default)]
pub struct Flights(Arc<Mutex<HashMap<Uuid, Weak<Flight>>>>);

/// What the requests about one row take turns at.
#[derive(Default)]
struct Flight {
    last: Arc<tokio::sync::Mutex<Option<Landing>>>,
    landings: AtomicU64,
}

/// What a refresh came to.
#[derive(Clone)]
pub(crate) struct Landing {
    /// The token that was to be replaced.
    pub(crate) replaced: Option<Secret>,
    /// What the next one who asks to replace it would hear.
    pub(crate) event: Event,
    /// The number's session by then.
    pub(crate) session: String,
    /// What the platform said, if that is why.
    pub(crate) platform: Option<PlatformError>,
    /// What the database said, if that is why.
    pub(crate) database: Option<StoreError>,
}

/// The turn at a row's refresh; it ends when this is dropped.
pub(crate) struct Turn {
    last: OwnedMutexGuard<Option<Landing>>,
    flight: Arc<Flight>,
    /// Landings before this request began to wait.
    seen: u64,
}

impl Flights {
    /// Waits for the turn at this row's refresh.
    pub(crate) async fn turn(&self, row: Uuid) -> Turn {
        let flight = self.flight(row);
        let seen = flight.landings.load(Ordering::Relaxed);
        Turn { last: flight.last.clone().lock_owned().await, flight, seen }
    }

    /// The turn at this row's refresh, if nobody has it.
    pub(crate) fn free_turn(&self, row: Uuid) -> Option<Turn> {
        let flight = self.flight(row);
        let last = flight.last.clone().try_lock_owned().ok()?;
        Some(Turn { last, seen: flight.landings.load(Ordering::Relaxed), flight })
    }

    fn flight(&self, row: Uuid) -> Arc<Flight> {
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

impl Turn {
    /// What replacing this token came to while this request waited for its turn, if somebody tried.
    pub(crate) fn landed(&self, replaced: Option<&Secret>) -> Option<Landing> {
        let waited = self.flight.landings.load(Ordering::Relaxed) > self.seen;
        self.last.clone().filter(|landing| waited && landing.replaced.as_ref() == replaced)
    }

    /// Leaves this to those who wait.
    pub(crate) fn land(&mut self, landing: Landing) {
        *self.last = Some(landing);
        self.flight.landings.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Uuid = Uuid::from_u128(1);

    fn landing(replaced: &str) -> Landing {
        let replaced = Some(Secret::new(replaced));
        Landing { replaced, event: Event::Gone, session: String::new(), platform: None, database: None }
    }

    async fn hears(flights: &Flights, replaced: &str) -> bool {
        flights.turn(ROW).await.landed(Some(&Secret::new(replaced))).is_some()
    }

    #[tokio::test]
    async fn a_turn_is_for_one_at_a_time_and_each_row_has_its_own() {
        let flights = Flights::default();
        let turn = flights.turn(ROW).await;
        assert!(flights.free_turn(ROW).is_none());
        assert!(flights.free_turn(Uuid::from_u128(2)).is_some());
        drop(turn);
        assert!(flights.free_turn(ROW).is_some());
    }

    #[tokio::test]
    async fn those_who_wait_hear_what_became_of_the_token_they_would_replace() {
        let flights = Flights::default();
        let mut turn = flights.turn(ROW).await;
        let lands = async {
            turn.land(landing("old"));
            drop(turn);
        };
        let heard =
            tokio::join!(hears(&flights, "old"), hears(&flights, "another"), hears(&flights, "old"), lands);
        assert_eq!(heard, (true, false, true, ()));
    }

    #[tokio::test]
    async fn whoever_comes_later_hears_nothing_also_while_others_still_wait() {
        let flights = Flights::default();
        let mut turn = flights.turn(ROW).await;
        let mut waiting = Box::pin(hears(&flights, "old"));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        turn.land(landing("old"));
        drop(turn);
        assert_eq!(tokio::join!(hears(&flights, "old"), waiting), (false, true));
    }

    #[tokio::test]
    async fn rows_that_nobody_waits_for_are_forgotten() {
        let flights = Flights::default();
        for row in 0..100 {
            flights.turn(Uuid::from_u128(row)).await.land(landing("old"));
        }
        assert_eq!(flights.0.lock().unwrap().len(), 1);
    }
}
