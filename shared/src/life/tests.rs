mod machine;
mod model;
mod walk;

use super::*;

const NOW: UnixMs = UnixMs(1_800_000_000_000);

fn token(jwt: &str, left: u64) -> Token {
    let life = Duration::from_secs(3600);
    Token { jwt: Secret::new(jwt), expires_at: NOW.plus(Duration::from_secs(left)), life }
}

fn row(token: Option<Token>) -> Event {
    Event::Row { token, now: NOW }
}

fn claim(replaced: Option<&str>, early: bool) -> Step {
    Step::Claim { replaced: replaced.map(Secret::new), early }
}

/// A life that has been through these events, with the last step.
fn after(events: impl IntoIterator<Item = Event>) -> (Life, Step) {
    let mut life = Life::new(Spread::of(&0));
    let step = events.into_iter().map(|event| life.next(event)).last();
    (life, step.unwrap())
}

#[test]
fn a_fresh_token_is_used_and_nothing_else_is_done() {
    let (mut life, step) = after([row(Some(token("t", 3600)))]);
    assert_eq!(step, Step::Call(token("t", 3600)));
    assert_eq!(life.next(Event::Served), Step::End(Ok(())));
}

#[test]
fn the_pauses_of_whoever_waits_double_and_end_with_the_others_lease() {
    let (mut life, _) = after([row(None)]);
    let mut pause = |left| match life.next(Event::Busy(Duration::from_millis(left))) {
        Step::Wait(pause) => {
            assert_eq!(life.next(Event::Waited), claim(None, false));
            pause.as_millis()
        }
        step => panic!("{step:?}"),
    };
    let pauses = [6000, 6000, 6000, 6000, 6000, 6000, 200].map(&mut pause);
    assert_eq!(pauses, [50, 100, 200, 400, 800, 800, 210]);
    assert_eq!((0..100).map(|_| pause(6000)).max(), Some(800));
}

/// What the platform gives is used once at least, so that a clock that is off or a nonsensical life ends in no loop.
#[test]
fn a_new_token_is_used_even_where_its_age_says_no() {
    let (_, step) = after([row(None), Event::Granted, Event::Fetched(token("new", 0)), Event::Saved]);
    assert_eq!(step, Step::Call(token("new", 0)));
}

#[test]
fn another_holders_token_is_taken_unless_it_is_the_refused_one() {
    let refused = [row(Some(token("old", 3600))), Event::Refused];
    let (mut life, step) = after(refused.clone());
    assert_eq!(step, claim(Some("old"), false));
    assert_eq!(life.next(row(Some(token("new", 3600)))), Step::Call(token("new", 3600)));
    let (mut life, _) = after(refused);
    assert_eq!(life.next(row(Some(token("old", 3600)))), claim(Some("old"), false));
}

/// It may be the only one that the platform still takes; our own serves where the row's does not.
#[test]
fn a_save_that_came_too_late_leaves_the_rows_token_in_use() {
    let fetched = [row(None), Event::Granted, Event::Fetched(token("ours", 3600))];
    let superseded = |token| Event::Superseded { token, now: NOW };
    let (mut life, _) = after(fetched.clone());
    assert_eq!(life.next(superseded(Some(token("theirs", 3600)))), Step::Call(token("theirs", 3600)));
    for theirs in [None, Some(token("theirs", 60))] {
        let (mut life, _) = after(fetched.clone());
        assert_eq!(life.next(superseded(theirs)), Step::Call(token("ours", 3600)));
    }
}

/// What a platform says of a key that was replaced meanwhile says nothing of the number.
#[test]
fn a_failure_with_a_key_that_was_replaced_is_followed_by_another_try() {
    let failure = FetchFailure::KeyRejected;
    let (mut life, step) = after([row(None), Event::Granted, Event::FetchFailed(failure)]);
    assert_eq!(step, Step::Release { failure, early: false });
    let mut other = life.clone();
    assert_eq!(life.next(row(Some(token("new", 3600)))), Step::Call(token("new", 3600)));
    assert_eq!(other.next(row(None)), claim(None, false));
}

/// The request has been served: whatever becomes of the refresh, that was its answer.
#[test]
fn an_early_refresh_ends_well_whatever_becomes_of_it() {
    let soon = || [row(Some(token("t", 100))), Event::Served];
    assert_eq!(after(soon()).1, claim(Some("t"), true));
    let failure = FetchFailure::KeyRejected;
    for event in [
        Event::Busy(Duration::from_secs(6)),
        Event::Cooling(failure),
        Event::ClaimFailed,
        Event::Gone,
        row(None),
        Event::Released,
        Event::Saved,
        Event::SaveFailed,
        Event::Superseded { token: None, now: NOW },
    ] {
        assert_eq!(after(soon().into_iter().chain([event])).1, Step::End(Ok(())));
    }
    let failed = [Event::Granted, Event::FetchFailed(failure)];
    assert_eq!(after(soon().into_iter().chain(failed)).1, Step::Release { failure, early: true });
}
