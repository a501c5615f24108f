//! The platform, asked before the row is there. What a sandbox remembers of a number is a guess: the platform is asked with it
//! while the database is asked for the row. What it answers counts only where the row turns out to hold the very session
//! and token that were guessed, and nobody has told of the session meanwhile; else it is dropped, and the row decides.

use std::collections::HashMap;
use std::future::{poll_fn, ready};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::App;
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::http::request::ApiRequest;
use crate::platform::{Platform, PlatformResult, SessionAuth, Status};
use crate::store::{Found, NumberSelector, Snapshot, StoreResult};

/// How many numbers a sandbox remembers. With more it forgets them all: who serves so many callers hardly meets one again.
const LIMIT: usize = 256;

/// Who asks, and which number is meant.
type Question = (Uuid, NumberSelector);

/// What a sandbox remembers, by who has asked for it.
#[derive(Default)]
pub struct Guesses(Mutex<HashMap<Question, Guess>>);

struct Guess {
    auth: SessionAuth,
    was_connected: bool,
}

/// What a request will want to know of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The QR.
    Qr,
    /// The status, and the QR unless a phone was linked.
    Status,
}

/// The calls that were begun beside a look-up; none where there was nothing to guess.
#[derive(Default)]
pub struct HeadStart<'a> {
    /// What the number is to be remembered for.
    question: Option<Question>,
    /// What was guessed.
    auth: Option<SessionAuth>,
    status: Option<Ahead<'a, Status>>,
    qr: Option<Ahead<'a, Option<String>>>,
    /// How long before the row was read the platform may have been asked.
    lead: Duration,
}

/// A call that may have been answered by now.
enum Ahead<'a, T> {
    Asking(BoxFuture<'a, PlatformResult<T>>),
    Answered(PlatformResult<T>),
}

impl App {
    /// Looks the number up that a user means, and asks the platform meanwhile, where that was asked for in this sandbox before.
    pub async fn find_and_ask(
        &self,
        request: &ApiRequest,
        selector: &NumberSelector,
        ask: Ask,
    ) -> StoreResult<(Found, HeadStart<'_>)> {
        let (deadline, question) = (request.deadline, (request.user_id, selector.clone()));
        let guess = self.guesses.known().remove(&question);
        let mut ahead =
            guess.map_or_else(HeadStart::default, |guess| guess.ask(&self.platform, ask, deadline));
        let had = deadline.remaining();
        let found = ahead.beside(self.store.find(request.user_id, selector, deadline)).await?;
        ahead.lead = had.saturating_sub(deadline.remaining());
        ahead.question = Some(question);
        Ok((found, ahead))
    }
}

impl Guesses {
    /// Remembers with what the platform has answered, for the next time that the same is asked.
    pub(crate) fn remember(&self, ahead: &mut HeadStart<'_>, auth: SessionAuth, was_connected: bool) {
        let Some(question) = ahead.question.take() else { return };
        let mut known = self.known();
        if known.len() >= LIMIT {
            known.clear();
        }
        known.insert(question, Guess { auth, was_connected });
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Question, Guess>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guess {
    /// Nothing is sent before the calls are polled.
    fn ask(self, platform: &Platform, ask: Ask, deadline: Deadline) -> HeadStart<'_> {
        let auth = self.auth.clone();
        let status =
            (ask == Ask::Status).then(|| Ahead::Asking(platform.status(auth.clone(), deadline).boxed()));
        let wants_qr = ask == Ask::Qr || !self.was_connected;
        let qr = wants_qr.then(|| Ahead::Asking(platform.qr(auth, deadline).boxed()));
        HeadStart { auth: Some(self.auth), status, qr, ..HeadStart::default() }
    }
}

impl<'a> HeadStart<'a> {
    /// Goes on with the calls while something else is done.
    async fn beside<W: Future>(&mut self, work: W) -> W::Output {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let output = work.as_mut().poll(cx);
            if let Some(status) = &mut self.status {
                status.go_on(cx);
            }
            if let Some(qr) = &mut self.qr {
                qr.go_on(cx);
            }
            output
        })
        .await
    }

    /// Drops the calls where the mirror was written since they were begun: it may tell of something newer.
    pub(crate) fn judge(&mut self, mirror: Option<&Snapshot>, now: UnixMs) {
        if mirror.is_some_and(|mirror| mirror.at >= now.minus(self.lead)) {
            (self.status, self.qr) = (None, None);
        }
    }

    /// The status: of the call that was begun with the same session and token, else of one that is made now.
    pub(crate) fn status(
        &mut self,
        platform: &'a Platform,
        auth: SessionAuth,
        deadline: Deadline,
    ) -> BoxFuture<'a, PlatformResult<Status>> {
        let ahead = self.status.take().filter(|_| self.auth.as_ref() == Some(&auth));
        ahead.map_or_else(|| platform.status(auth, deadline).boxed(), Ahead::outcome)
    }

    /// The QR, in the same way.
    pub(crate) fn qr(
        &mut self,
        platform: &'a Platform,
        auth: SessionAuth,
        deadline: Deadline,
    ) -> BoxFuture<'a, PlatformResult<Option<String>>> {
        let ahead = self.qr.take().filter(|_| self.auth.as_ref() == Some(&auth));
        ahead.map_or_else(|| platform.qr(auth, deadline).boxed(), Ahead::outcome)
    }
}

impl<'a, T: Send + 'a> Ahead<'a, T> {
    fn go_on(&mut self, cx: &mut Context<'_>) {
        if let Self::Asking(call) = self
            && let Poll::Ready(outcome) = call.as_mut().poll(cx)
        {
            *self = Self::Answered(outcome);
        }
    }

    fn outcome(self) -> BoxFuture<'a, PlatformResult<T>> {
        match self {
            Self::Asking(call) => call,
            Self::Answered(outcome) => ready(outcome).boxed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_sandbox_remembers_the_last_ones_and_never_more_than_the_limit() {
        let guesses = Guesses::default();
        let auth = SessionAuth { session: "4".to_owned(), jwt: Secret::new("t") };
        for user in 0..1000 {
            let question = (Uuid::from_u128(user), NumberSelector::default());
            let mut ahead = HeadStart { question: Some(question.clone()), ..HeadStart::default() };
            guesses.remember(&mut ahead, auth.clone(), false);
            assert!(guesses.known().contains_key(&question) && guesses.known().len() <= LIMIT);
        }
    }
}
