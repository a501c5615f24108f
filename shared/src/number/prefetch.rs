//! Calls the platform while the database looks up the number's row, so that a poll takes one hop instead of two. The sandbox
//! remembers, for each user and number, the session and token of the last successful call.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::App;
use crate::deadline::Deadline;
use crate::request_log::RequestLog;
use crate::store::{Found, NumberSelector, StoreResult};
use crate::wpp::{PlatformResult, SessionAuth, Status, WppApi};

/// How many users' numbers a sandbox remembers. When the limit is reached, it forgets all of them: with that many users, it
/// rarely sees one of them again.
const LIMIT: usize = 256;

/// What a request will ask the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The QR code.
    Qr,
    /// The status, and the QR code unless a phone is connected.
    Status,
    /// Nothing, if the stored state is recent.
    Nothing,
}

/// The user and the number.
type Query = (Uuid, NumberSelector);

/// What a sandbox remembers, by user and number.
#[derive(Default)]
pub struct PrefetchMemory(Mutex<HashMap<Query, Remembered>>);

struct Remembered {
    auth: SessionAuth,
    was_connected: bool,
}

/// The platform calls under way for one request. They end when this is dropped.
#[derive(Default)]
pub(crate) struct Prefetch {
    query: Option<Query>,
    /// What the calls are made with.
    auth: Option<SessionAuth>,
    status: JoinSet<PlatformResult<Status>>,
    qr: JoinSet<PlatformResult<Option<String>>>,
}

/// Looks up a user's number. If the sandbox remembers it, calls the platform at the same time. The platform's answer counts only if
/// the row holds the same session and token, and no snapshot was written since the call began.
pub(crate) async fn find(
    app: &App,
    user_id: Uuid,
    selector: &NumberSelector,
    expect: Expect,
    deadline: Deadline,
) -> StoreResult<(Found, Prefetch)> {
    let query = (user_id, selector.clone());
    let mut prefetch = Prefetch::default();
    if expect != Expect::Nothing
        && let Some(remembered) = app.prefetches.lock().remove(&query)
    {
        prefetch.begin(remembered, &app.wpp, expect, deadline);
    }
    let at_first = deadline.remaining();
    let found = app.store.find(user_id, selector, deadline).await?;
    let began_at = found.now.minus(at_first.saturating_sub(deadline.remaining()));
    let snapshot = found.number.as_ref().and_then(|number| number.snapshot.as_ref());
    if snapshot.is_some_and(|snapshot| snapshot.at >= began_at) {
        prefetch = Prefetch::default();
    }
    if expect != Expect::Nothing {
        prefetch.query = Some(query);
    }
    Ok((found, prefetch))
}

impl PrefetchMemory {
    /// Remembers the session and token of a successful call, for the user's next request about the same number.
    pub(crate) fn remember(&self, prefetch: &mut Prefetch, auth: SessionAuth, was_connected: bool) {
        let Some(query) = prefetch.query.take() else { return };
        let mut memory = self.lock();
        if memory.len() >= LIMIT {
            memory.clear();
        }
        memory.insert(query, Remembered { auth, was_connected });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Query, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prefetch {
    fn begin(&mut self, remembered: Remembered, wpp: &WppApi, expect: Expect, deadline: Deadline) {
        let Remembered { auth, was_connected } = remembered;
        if expect == Expect::Status {
            let (wpp, auth) = (wpp.clone(), auth.clone());
            self.status.spawn(RequestLog::current().scope(async move { wpp.status(auth, deadline).await }));
        }
        if expect == Expect::Qr || !was_connected {
            let (wpp, auth) = (wpp.clone(), auth.clone());
            self.qr.spawn(RequestLog::current().scope(async move { wpp.qr(auth, deadline).await }));
        }
        self.auth = Some(auth);
    }

    /// Returns the session's status: from the call under way if it has the same session and token, otherwise from a new call.
    pub(crate) fn status<'a>(
        &mut self,
        wpp: &'a WppApi,
        auth: SessionAuth,
        deadline: Deadline,
    ) -> impl Future<Output = PlatformResult<Status>> + use<'a> {
        let mut begun = if self.is_with(&auth) { std::mem::take(&mut self.status) } else { JoinSet::new() };
        async move {
            match begun.join_next().await {
                Some(Ok(status)) => status,
                _ => wpp.status(auth, deadline).await,
            }
        }
    }

    /// Returns the session's QR code, in the same way.
    pub(crate) fn qr<'a>(
        &mut self,
        wpp: &'a WppApi,
        auth: SessionAuth,
        deadline: Deadline,
    ) -> impl Future<Output = PlatformResult<Option<String>>> + use<'a> {
        let mut begun = if self.is_with(&auth) { std::mem::take(&mut self.qr) } else { JoinSet::new() };
        async move {
            match begun.join_next().await {
                Some(Ok(qr)) => qr,
                _ => wpp.qr(auth, deadline).await,
            }
        }
    }

    fn is_with(&self, auth: &SessionAuth) -> bool {
        self.auth.as_ref() == Some(auth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn memory_is_emptied_only_at_its_limit() {
        let memory = PrefetchMemory::default();
        let auth = SessionAuth { session: "4".to_owned(), jwt: Secret::new("t") };
        for user in 0..1000_u16 {
            let query = (Uuid::from_u128(user.into()), NumberSelector::default());
            let mut prefetch = Prefetch { query: Some(query.clone()), ..Prefetch::default() };
            memory.remember(&mut prefetch, auth.clone(), false);
            assert!(memory.lock().contains_key(&query));
            assert_eq!(memory.lock().len(), usize::from(user) % LIMIT + 1);
        }
    }
}
