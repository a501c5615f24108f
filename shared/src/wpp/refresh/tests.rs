mod memory;

use futures_util::future::join_all;

use memory::Memory;

use super::*;
use crate::clock::UnixMs;
use crate::error::Error;
use crate::request_log::noted;
use crate::wpp::token::tests::stored_number::StoredNumber;

const BUDGET: Duration = Duration::from_secs(25);
const NEVER: Duration = Duration::from_secs(3600);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The token that served a request, or the code of its error.
type Told = Result<u32, &'static str>;

fn told(answer: Result<u32, Error>) -> Told {
    answer.map_err(|error| error.response().code)
}

#[tokio::test(start_paused = true)]
async fn a_token_with_over_a_minute_left_is_used() {
    let memory = Memory::with_token(61);
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Ok(0));
    assert_eq!((memory.calls("claim"), memory.calls("call")), (0, 1));
}

#[test]
fn permit_is_shared_until_its_last_request_ends() {
    let permits = SingleFlight::default();
    let held = permits.of(Uuid::from_u128(1));
    let other = permits.of(Uuid::from_u128(2));
    assert!(Arc::ptr_eq(&held, &permits.of(Uuid::from_u128(1))) && !Arc::ptr_eq(&held, &other));
    drop((held, other));
    permits.of(Uuid::from_u128(3));
    assert_eq!(permits.0.lock().unwrap().len(), 1);
}

/// What goes wrong when a due token is refreshed, which token serves the request, and when.
#[tokio::test(start_paused = true)]
async fn a_due_token_delays_a_request_by_at_most_1500_ms() {
    type Trouble = fn(&Memory);
    let cases: [(&str, Trouble, u32, u64); 17] = [
        ("nothing", |_| {}, 1, 0),
        ("the claim hangs", |it| it.slow("claim", NEVER), 0, 1000),
        ("the claim fails", |it| it.break_off("claim", PlatformError::Unavailable), 0, 0),
        ("the lease is busy", |it| it.lease_to_a_stranger(ms(8000)), 0, 0),
        ("the key is dead", |it| it.break_off("fetch", PlatformError::KeyRefused), 0, 0),
        ("the platform is away", |it| it.break_off("fetch", PlatformError::Unavailable), 0, 0),
        ("the fetch hangs", |it| it.slow("fetch", NEVER), 0, 1000),
        ("the fetch takes its time", |it| it.slow("fetch", ms(999)), 1, 999),
        (
            "the claim is slow",
            |it| {
                it.slow("claim", ms(600));
                it.slow("fetch", NEVER);
            },
            0,
            1000,
        ),
        ("the save fails", |it| it.break_off("save", PlatformError::Unavailable), 1, 0),
        ("the save hangs", |it| it.slow("save", NEVER), 1, 500),
        (
            "all is slow",
            |it| {
                it.slow("claim", ms(400));
                it.slow("fetch", ms(599));
                it.slow("save", NEVER);
            },
            1,
            1499,
        ),
        ("it is recreated", |it| it.state().before = Some(("claim", StoredNumber::recreate)), 1, 0),
        ("it has moved on", |it| it.state().before = Some(("claim", moved_on)), 7, 0),
        (
            "it has moved on to one that is due",
            |it| it.state().before = Some(("claim", moved_on_to_due)),
            7,
            0,
        ),
        ("it is saved by another", |it| it.state().before = Some(("save", moved_on)), 7, 0),
        (
            "a refresh has just failed",
            |it| {
                it.lease_to_a_stranger(Duration::ZERO);
                let number = &mut it.state().number;
                number.cool_until = UnixMs(i64::MAX);
                number.row.lease.as_mut().unwrap().cooldown = Some("api_key_rejected");
            },
            0,
            0,
        ),
    ];
    for (case, trouble, token, delay_ms) in cases {
        let memory = Memory::with_token(30);
        trouble(&memory);
        assert_eq!(told(memory.sandbox().request(BUDGET).await), Ok(token), "{case}");
        assert_eq!(memory.passed(), ms(delay_ms), "{case}");
        assert_eq!(memory.calls("release"), 0, "{case}: its lease expires");
    }
}

fn moved_on(number: &mut StoredNumber) {
    number.ends.insert(7, UnixMs(i64::MAX / 2));
    number.row.token = Some(7);
}

fn moved_on_to_due(number: &mut StoredNumber) {
    moved_on(number);
    number.ends.insert(7, number.ends[&0]);
}

/// The platform delays the request that refreshes. No other request waits for it, in its sandbox or in another.
#[tokio::test(start_paused = true)]
async fn due_token_never_waits_for_another_refresh() {
    let memory = Memory::with_token(30);
    memory.slow("claim", ms(1));
    memory.slow("fetch", NEVER);
    let sandboxes = [memory.sandbox(), memory.sandbox()];
    let request = async |nth: usize| {
        let answer = told(sandboxes[nth % 2].request(BUDGET).await);
        (answer, memory.passed())
    };
    let answers = join_all((0..10).map(request)).await;
    assert!(answers.iter().all(|(answer, _)| *answer == Ok(0)), "{answers:?}");
    let at = |time| answers.iter().filter(|(_, passed)| *passed == ms(time)).count();
    assert_eq!((at(0), at(1), at(1000)), (8, 1, 1), "{answers:?}");
    assert_eq!((memory.calls("claim"), memory.calls("fetch")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_tries_once_to_replace_a_due_token() {
    for hangs in ["claim", "fetch"] {
        let memory = Memory::with_token(30);
        memory.slow(hangs, NEVER);
        let sandbox = memory.sandbox();
        let mut client = sandbox.client();
        for _ in 0..5 {
            assert_eq!(told(sandbox.call(&mut client, BUDGET).await), Ok(0));
            tokio::time::sleep(ms(2000)).await;
        }
        assert_eq!((memory.calls("claim"), memory.calls("call")), (1, 5), "{hangs}");
    }
}

/// The platform rejects a due token while another request's refresh of it hangs.
#[tokio::test(start_paused = true)]
async fn failed_due_refresh_blocks_only_for_its_lease() {
    for same_sandbox in [true, false] {
        let memory = Memory::with_token(30);
        memory.slow("fetch", NEVER);
        let (first, other) = (memory.sandbox(), memory.sandbox());
        assert_eq!(told(first.request(BUDGET).await), Ok(0));
        memory.state().takes.clear();
        memory.state().rejected.insert(0);
        let second = if same_sandbox { &first } else { &other };
        assert_eq!(told(second.request(BUDGET).await), Ok(2));
        assert!(memory.passed() <= ms(1600), "{:?}", memory.passed());
    }
}

/// The platform rejects the due token of a request that failed to refresh it.
#[tokio::test(start_paused = true)]
async fn request_does_not_wait_for_its_own_lease() {
    let memory = Memory::with_token(30);
    memory.state().rejected.insert(0);
    memory.break_off("fetch", PlatformError::Unavailable);
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Err("platform_unavailable"));
    assert_eq!((memory.passed(), memory.calls("claim"), memory.calls("fetch")), (Duration::ZERO, 2, 2));
}

/// Which step takes how long when a token is needed, and the outcome and its time.
#[tokio::test(start_paused = true)]
async fn no_call_of_a_refresh_outlasts_its_lease() {
    for (takes, expected, after_ms) in [
        (vec![("fetch", ms(4999))], Ok(1), 4999),
        (vec![("fetch", NEVER)], Err("platform_timeout"), 5000),
        (vec![("claim", ms(4000)), ("fetch", NEVER)], Err("platform_timeout"), 5000),
        (vec![("claim", NEVER)], Err("database_timeout"), 5000),
        (vec![("save", NEVER)], Ok(1), 3000),
        (vec![("claim", ms(4000)), ("fetch", ms(999)), ("save", NEVER)], Ok(1), 7999),
        (vec![("fetch", NEVER), ("release", NEVER)], Err("platform_timeout"), 6000),
    ] {
        let memory = Memory::with_token(0);
        memory.state().takes.extend(takes.clone());
        assert_eq!(told(memory.sandbox().request(BUDGET).await), expected, "{takes:?}");
        assert_eq!(memory.passed(), ms(after_ms), "{takes:?}");
    }
}

/// The lease's time starts before the claim is sent, and the claim's answer takes most of it. Another sandbox gets the lease when
/// it ends, and must not fetch while the first one does. [`Memory`] checks that.
#[tokio::test(start_paused = true)]
async fn slow_claim_shortens_the_fetch() {
    let memory = Memory::with_token(0);
    memory.state().takes.extend([("claim", ms(4500)), ("fetch", NEVER)]);
    memory.break_off("release", PlatformError::Unavailable);
    let (first, second) = (memory.sandbox(), memory.sandbox());
    let late = async {
        tokio::time::sleep(ms(1)).await;
        memory.state().takes.remove("claim");
        second.request(BUDGET).await
    };
    let (first, second) = tokio::join!(first.request(BUDGET), late);
    assert_eq!((told(first), told(second)), (Err("platform_timeout"), Err("platform_timeout")));
    assert_eq!(memory.calls("fetch"), 2);
}

#[tokio::test(start_paused = true)]
async fn cooldown_depends_on_the_failure() {
    use PlatformError as P;
    for (failure, key_is_new, time, noted, code) in [
        (P::KeyRefused, false, BUDGET, ("api_key_rejected", 30), "api_key_rejected"),
        (P::KeyRefused, true, BUDGET, ("api_key_not_active", 1), "api_key_not_active"),
        (P::Unavailable, false, BUDGET, ("platform", 1), "platform_unavailable"),
        (P::Busy(None), true, BUDGET, ("platform", 1), "platform_busy"),
        (P::BadAnswer, false, BUDGET, ("platform", 1), "platform_bad_answer"),
        // This request ran out of time; another one may have more.
        (P::TimedOut, false, ms(2000), ("platform", 0), "platform_timeout"),
    ] {
        let memory = Memory::with_token(0);
        memory.state().number.key_is_new = key_is_new;
        if failure == P::TimedOut {
            memory.slow("fetch", NEVER);
        } else {
            memory.break_off("fetch", failure);
        }
        let sandbox = memory.sandbox();
        assert_eq!(told(sandbox.request(time).await), Err(code));
        assert_eq!(memory.state().noted, [(noted.0.to_owned(), noted.1)]);
        // The next request gets the same failure, and asks the platform when the cooldown is over.
        memory.break_off("fetch", P::BadAnswer);
        if noted.1 > 0 {
            let heard = if noted.0 == "platform" { "platform_unavailable" } else { code };
            assert_eq!(told(sandbox.request(BUDGET).await), Err(heard));
        }
        assert_eq!(memory.calls("fetch"), 1);
        tokio::time::sleep(Duration::from_secs(noted.1)).await;
        assert_eq!(told(sandbox.request(BUDGET).await), Err("platform_bad_answer"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_token_until_its_deadline() {
    let memory = Memory::with_token(0);
    memory.lease_to_a_stranger(ms(8000));
    let sandbox = memory.sandbox();
    let in_vain = sandbox.request(ms(6000)).await;
    assert_eq!((told(in_vain), memory.passed()), (Err("deadline_exceeded"), ms(6000)));
    let claims = std::mem::take(&mut memory.state().claimed_at);
    for (pause, longest) in claims.windows(2).zip([50, 100, 200, 400, 800, 800, 800].map(ms)) {
        let pause = pause[1] - pause[0];
        assert!((longest / 2..=longest + ms(1)).contains(&pause), "{pause:?} of {longest:?}");
    }
    assert!(claims.len() > 7, "{claims:?}");

    memory.state().before = Some(("claim", moved_on));
    assert_eq!(told(sandbox.request(BUDGET).await), Ok(7));
    assert_eq!(memory.calls("fetch"), 0);
}

/// A dead holder costs the rest of its lease.
#[tokio::test(start_paused = true)]
async fn waiting_request_continues_when_the_lease_ends() {
    let memory = Memory::with_token(0);
    memory.lease_to_a_stranger(ms(8000));
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Ok(1));
    assert!((ms(8000)..ms(8850)).contains(&memory.passed()), "{:?}", memory.passed());
}

/// Fifty requests of one sandbox at once: what each one gets, and how often the database and the platform are asked.
#[tokio::test(start_paused = true)]
async fn only_the_first_request_of_a_sandbox_claims_the_lease() {
    type Trouble = fn(&Memory);
    const AWAY: PlatformError = PlatformError::Unavailable;
    let cases: [(&str, u64, Trouble, Told, [u32; 3]); 5] = [
        ("expired", 0, |_| {}, Ok(1), [1, 1, 1]),
        ("rejected", 3600, |it| it.reject(0), Ok(1), [1, 1, 1]),
        ("saved nowhere", 0, |it| it.break_off("save", AWAY), Ok(1), [1, 1, 1]),
        // The failure is in the row, and each request reads it there.
        (
            "dead",
            0,
            |it| it.break_off("fetch", PlatformError::KeyRefused),
            Err("api_key_rejected"),
            [50, 1, 0],
        ),
        ("away", 0, |it| it.break_off("fetch", AWAY), Err("platform_unavailable"), [50, 1, 0]),
    ];
    for (case, left, trouble, expected, calls) in cases {
        let memory = Memory::with_token(left);
        trouble(&memory);
        memory.state().takes.extend(["claim", "fetch", "save", "release"].map(|call| (call, ms(5))));
        let sandbox = memory.sandbox();
        let answers = join_all((0..50).map(|_| sandbox.request(BUDGET))).await;
        assert!(answers.into_iter().all(|answer| told(answer) == expected), "{case}");
        assert_eq!(["claim", "fetch", "save"].map(|call| memory.calls(call)), calls, "{case}");
    }
}

/// The row that the last request left with the permit is older than the one this request read, so it is not used.
#[tokio::test(start_paused = true)]
async fn row_read_by_an_earlier_request_is_not_used() {
    let memory = Memory::with_token(0);
    let sandbox = memory.sandbox();
    let _keeps_the_flight = sandbox.client();
    assert_eq!(told(sandbox.request(BUDGET).await), Ok(1));
    tokio::time::sleep(ms(1)).await;
    memory.state().number.recreate();
    assert_eq!(told(sandbox.request(BUDGET).await), Ok(2));
    assert_eq!(memory.state().served, served(&[("t1", "first"), ("t2", "second")]));
    assert_eq!(memory.calls("call"), 2);
}

/// Two requests wait for a number that is recreated. The second one continues with everything that the first one found.
#[tokio::test(start_paused = true)]
async fn a_waiting_request_continues_with_the_last_row() {
    let memory = Memory::with_token(0);
    memory.slow("claim", ms(1));
    memory.state().before = Some(("fetch", StoredNumber::recreate));
    let sandbox = memory.sandbox();
    let answers = tokio::join!(sandbox.request(BUDGET), sandbox.request(BUDGET));
    assert_eq!((told(answers.0), told(answers.1)), (Ok(1), Ok(1)));
    assert_eq!(memory.state().served, served(&[("t1", "second")]));
    assert_eq!((memory.calls("claim"), memory.calls("call")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn the_permit_is_free_while_the_platform_is_called() {
    let memory = Memory::with_token(0);
    memory.state().takes.extend([("claim", ms(1)), ("call", ms(4999))]);
    let sandbox = memory.sandbox();
    let answers = tokio::join!(sandbox.request(BUDGET), sandbox.request(BUDGET));
    assert_eq!((told(answers.0), told(answers.1), memory.passed()), (Ok(1), Ok(1), ms(5000)));
}

fn served(calls: &[(&str, &str)]) -> std::collections::BTreeSet<(String, String)> {
    calls.iter().map(|(jwt, session)| ((*jwt).to_owned(), (*session).to_owned())).collect()
}

/// The number was recreated: the platform's answer for the old API key is useless now, and so is the old key's token.
#[tokio::test(start_paused = true)]
async fn credentials_saved_meanwhile_are_used() {
    for (call, left, fetches) in [
        ("claim", 0, 1),
        ("fetch", 0, 2),
        ("save", 0, 2),
        ("claim", 30, 1),
        ("fetch", 30, 2),
        ("save", 30, 2),
    ] {
        let memory = Memory::with_token(left);
        memory.state().before = Some((call, StoredNumber::recreate));
        let answer = told(memory.sandbox().request(BUDGET).await);
        assert!(answer.is_ok_and(|token| token > 0), "{call}, {left} s left");
        assert_eq!(memory.calls("fetch"), fetches, "{call}, {left} s left");
        let used = memory.state().served.clone();
        assert!(used.iter().all(|(jwt, session)| (jwt == "t0") == (session == "first")), "{call}: {used:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_number_is_not_found() {
    let memory = Memory::with_token(0);
    memory.state().before = Some(("claim", |number| {
        number.row.token = None;
        number.session = "";
    }));
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Err("number_not_found"));
}

#[tokio::test(start_paused = true)]
async fn second_rejection_fails_after_one_new_token() {
    let memory = Memory::with_token(3600);
    memory.state().rejected.extend([0, 1, 2]);
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Err("token_rejected"));
    assert_eq!((memory.calls("call"), memory.calls("fetch")), (2, 1));
    // A due token that was replaced also counts as the one refresh.
    let memory = Memory::with_token(30);
    memory.state().rejected.extend([0, 1]);
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Ok(2));
    assert_eq!((memory.calls("call"), memory.calls("fetch")), (2, 2));
}

/// The lease is released after a failed save, so that the next request can save another token at once.
#[tokio::test(start_paused = true)]
async fn a_failed_save_does_not_block_the_next() {
    let memory = Memory::with_token(0);
    memory.break_off("save", PlatformError::Unavailable);
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Ok(1));
    memory.state().fails.clear();
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Ok(2));
    assert_eq!((memory.passed(), memory.calls("release")), (Duration::ZERO, 1));
}

/// An unanswered save may arrive much later. It must not end a lease that the same call has by then.
#[tokio::test(start_paused = true)]
async fn unanswered_save_changes_the_holder() {
    // A lease that expires keeps the record that the rejected token is new, which causes a cooldown.
    for (left, expected) in [(0, Ok(2)), (30, Err("token_rejected"))] {
        let memory = Memory::with_token(left);
        memory.slow("save", NEVER);
        memory.state().rejected.insert(1);
        assert_eq!(told(memory.sandbox().request(BUDGET).await), expected);
        assert_eq!(memory.state().holders.len(), 2);
    }
}

/// A proxy in front of the platform may refuse every token.
#[tokio::test(start_paused = true)]
async fn a_new_token_that_is_rejected_cools_down_for_30_seconds() {
    let memory = Memory::with_token(3600);
    memory.state().rejected.extend(0..10);
    for fetched in [1, 1, 1, 1, 1] {
        // Each poll is in another sandbox.
        assert_eq!(told(memory.sandbox().request(BUDGET).await), Err("token_rejected"));
        assert_eq!(memory.calls("fetch"), fetched);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    // The stored token is tried each time, and works as soon as the platform accepts it again.
    assert_eq!(memory.calls("call"), 6);
    memory.state().rejected.remove(&1);
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Ok(1));
    memory.state().rejected.insert(1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Err("token_rejected"));
    assert_eq!(memory.calls("fetch"), 2);
}

#[tokio::test(start_paused = true)]
async fn rejected_token_a_minute_old_is_replaced() {
    let memory = Memory::with_token(0);
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Ok(1));
    memory.reject(1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(told(memory.sandbox().request(BUDGET).await), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn the_log_says_how_a_request_got_its_token() {
    use PlatformError::{KeyRefused, Refused, Unavailable};
    type Trouble = fn(&Memory);
    let cases: [(u64, Trouble, TokenUse, Option<&str>, &str); 14] = [
        (3600, |_| {}, TokenUse::Reused, None, ""),
        (0, |_| {}, TokenUse::Refreshed, Some("expired"), ""),
        (30, |_| {}, TokenUse::Refreshed, Some("due"), ""),
        (3600, |it| it.reject(0), TokenUse::Refreshed, Some("rejected"), ""),
        (30, |it| it.lease_to_a_stranger(ms(9)), TokenUse::Kept, Some("due"), ""),
        (
            30,
            |it| it.break_off("fetch", Unavailable),
            TokenUse::Kept,
            Some("due"),
            "platform auth/token: unavailable",
        ),
        (30, |it| it.break_off("fetch", KeyRefused), TokenUse::Kept, Some("due"), ""),
        (0, |it| it.state().before = Some(("claim", moved_on)), TokenUse::Reused, Some("expired"), ""),
        (0, |it| it.state().before = Some(("save", moved_on)), TokenUse::Reused, Some("expired"), ""),
        (
            0,
            |it| it.break_off("save", Unavailable),
            TokenUse::Refreshed,
            Some("expired"),
            "database save: unavailable",
        ),
        (
            0,
            |it| it.break_off("claim", Unavailable),
            TokenUse::Failed,
            Some("expired"),
            "database claim: unavailable",
        ),
        (
            0,
            |it| it.slow("fetch", NEVER),
            TokenUse::Failed,
            Some("expired"),
            "platform auth/token: timed out",
        ),
        (
            0,
            |it| it.break_off("fetch", Refused(400)),
            TokenUse::Failed,
            Some("expired"),
            "platform auth/token: refused with status 400",
        ),
        (0, |it| it.break_off("fetch", KeyRefused), TokenUse::Failed, Some("expired"), ""),
    ];
    for (left, trouble, used, why, failure) in cases {
        let memory = Memory::with_token(left);
        trouble(&memory);
        let request = async { memory.sandbox().request(BUDGET).await };
        let (_, notes) = noted(request).await;
        let case = format!("{notes:?}");
        assert_eq!((notes.token, notes.token_why), (Some(used), why), "{case}");
        assert_eq!(notes.refresh_failure.unwrap_or_default(), failure, "{case}");
        assert!(!case.contains("t0") && !case.contains("key0"), "{case}");
    }
}
