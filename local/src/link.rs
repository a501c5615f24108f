//! `local link`: links a number in the terminal, using only the three functions. `WPP_URL` and `WPP_TOKEN` say which functions to use; by
//! default the functions of `local dev`. `SESSION` names a number, `ADD=1` asks for one more, `WAIT_S` says how long to wait for the
//! phone. The exit code says how it ended: see [`Exit`].

mod screen;

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use rustls::crypto::ring::default_provider;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::signal::unix::{SignalKind, signal};

use self::screen::{Screen, Words};
use crate::{clock, dev, http};

/// The pause between two questions, if the answer does not name one. After failures it doubles each time.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// No longer pause is worth obeying.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// A little more than an API gateway waits for a function.
const PATIENCE: Duration = Duration::from_secs(35);

/// No person holds a phone in front of a terminal for longer.
const WAIT_S: u64 = 300;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The number is connected.
    Connected = 0,
    /// The functions refuse, and to ask again would change nothing.
    Refused = 1,
    /// A variable is missing or malformed, or the code cannot be shown.
    Unusable = 2,
    /// The time is over, and no phone has scanned the code.
    GaveUp = 3,
    /// There is no answer.
    Unreachable = 4,
    /// Ctrl-C, or another signal to end.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An end without a connected number, and the sentence for the person.
struct End(Exit, String);

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        unusable(error)
    }
}

fn unusable(why: impl ToString) -> End {
    End(Exit::Unusable, why.to_string())
}

/// Links a number, and leaves the terminal as it was.
pub async fn run() -> Exit {
    let words = Words::from_env();
    let ended = tokio::select! {
        ended = link(words) => ended,
        _ = interruption() => Err(End(Exit::Interrupted, words.interrupted.to_owned())),
    };
    // If the output cannot be written, the exit code still tells.
    match ended {
        Ok(said) => {
            let _ = writeln!(io::stdout(), "{}", printable(&said));
            Exit::Connected
        }
        Err(End(exit, said)) => {
            let _ = writeln!(io::stderr(), "{}", printable(&said));
            exit
        }
    }
}

async fn interruption() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
    Ok(())
}

async fn link(words: &'static Words) -> Result<String, End> {
    let wait_s = match variable("WAIT_S") {
        Some(text) => {
            text.parse().map_err(|_| unusable(format!("WAIT_S={text} is not a number of seconds")))?
        }
        None => WAIT_S,
    };
    let mut link = Link::from_env(words)?;
    if let Ok(ended) = tokio::time::timeout(Duration::from_secs(wait_s), link.run()).await {
        return ended;
    }
    Err(match link.trouble {
        Some(End(Exit::Unreachable, said)) => End(Exit::Unreachable, said),
        Some(End(_, said)) => End(Exit::GaveUp, said),
        None => End(Exit::GaveUp, words.gave_up.replace("{}", &wait_s.to_string())),
    })
}

/// Asks the functions one question at a time, while the screen continues to count down.
struct Link {
    http: Client,
    url: String,
    token: String,
    words: &'static Words,
    screen: Screen,
    /// The sentence for the case that there is no answer.
    unreachable: &'static str,
    has_answered: bool,
    /// Why the last question has no answer.
    trouble: Option<End>,
}

/// The fields that are read of an answer of any of the functions, and of an error.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    session: String,
    status: String,
    #[serde(alias = "qr")]
    qrcode: Option<String>,
    poll_after_ms: Option<u64>,
    seen_at: Option<String>,
    qr_good_until: Option<String>,
    message: Option<String>,
    error: Option<String>,
    retryable: bool,
}

impl Answer {
    /// Returns the QR, and for how long it is valid by the functions' clock.
    fn code(&self) -> Option<(&str, Option<Duration>)> {
        let time = |text: &Option<String>| OffsetDateTime::parse(text.as_deref()?, &Rfc3339).ok();
        let good_for = time(&self.qr_good_until).zip(time(&self.seen_at)).map(|(end, now)| end - now);
        Some((self.qrcode.as_deref()?, good_for.map(|left| left.try_into().unwrap_or_default())))
    }
}

/// A question without an answer, and how long to wait before it is worth repeating, if it is.
struct Failure(End, Option<Duration>);

impl Link {
    fn from_env(words: &'static Words) -> Result<Self, End> {
        let (url, token, http, unreachable) = if let Some(url) = variable("WPP_URL") {
            let token =
                variable("WPP_TOKEN").ok_or_else(|| unusable("WPP_TOKEN is not set: a user's JWT"))?;
            (deployed(&url)?, token, client().map_err(unusable)?, words.unreachable)
        } else {
            let nothing_runs = || End(Exit::Unreachable, words.nothing_runs.to_owned());
            let (url, token) = dev::running().ok_or_else(nothing_runs)?;
            (url, token, http::client().map_err(unusable)?, words.nothing_runs)
        };
        if HeaderValue::from_str(&token).is_err() {
            return Err(unusable("WPP_TOKEN is not a token: there is a line break in it, or the like"));
        }
        let screen = Screen::new(words)?;
        Ok(Self { http, url, token, words, screen, unreachable, has_answered: false, trouble: None })
    }

    /// Connects a number, from its creation to the linked phone.
    async fn run(&mut self) -> Result<String, End> {
        let mut wanted = json!({});
        if let Some(session) = variable("SESSION") {
            wanted["session"] = session.into();
        }
        if variable("ADD").is_some_and(|add| add != "0") {
            wanted["add_new"] = true.into();
        }
        let mut seen = self.insist("wpp-create", &wanted).await?;
        let session = std::mem::take(&mut seen.session);
        while seen.status != "connected" {
            // The platform does nothing more until it is asked to.
            if seen.status == "disconnected" {
                return Err(End(Exit::Refused, seen.message.unwrap_or(seen.status)));
            }
            let usual = if seen.qrcode.is_some() { self.words.scan } else { self.words.starting };
            self.screen.show(seen.code(), seen.message.as_deref().unwrap_or(usual))?;
            self.pause(seen.poll_after_ms.map_or(PAUSE, Duration::from_millis)).await;
            seen = self.insist("wpp-qr", &json!({"session": session})).await?;
            // The status says why there is no QR.
            if seen.qrcode.is_none() {
                seen = self.insist("wpp-status", &json!({"session": session, "force": true})).await?;
            }
        }
        let connected = self.words.connected.replace("{}", &session);
        Ok(seen.message.map_or(connected.clone(), |message| format!("{connected} {message}")))
    }

    /// Asks until there is an answer, or a failure that lasts.
    async fn insist(&mut self, name: &str, body: &Value) -> Result<Answer, End> {
        let mut pause = PAUSE;
        loop {
            let (trouble, retry_after) = match self.ask(name, body).await {
                Ok(answer) => {
                    self.trouble = None;
                    return Ok(answer);
                }
                Err(Failure(end, None)) => return Err(end),
                Err(Failure(trouble, Some(retry_after))) => (trouble, retry_after),
            };
            self.screen.say(&trouble.1)?;
            self.trouble = Some(trouble);
            self.pause(pause.max(retry_after)).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    async fn ask(&mut self, name: &str, body: &Value) -> Result<Answer, Failure> {
        let request = self
            .http
            .post(format!("{}/{name}", self.url))
            .bearer_auth(&self.token)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT_LANGUAGE, self.words.language)
            .timeout(PATIENCE)
            .body(body.to_string());
        let answer = async { read(request.send().await?).await };
        let answer = self.screen.meanwhile(answer).await.unwrap_or_else(|error| {
            let said = self.unreachable.replace("{}", &format!("{}: {}", self.url, root(&error)));
            // At the very start the address is wrong, or nothing runs there.
            Err(Failure(End(Exit::Unreachable, said), self.has_answered.then_some(Duration::ZERO)))
        });
        self.has_answered |= !matches!(&answer, Err(Failure(End(Exit::Unreachable, _), _)));
        answer
    }

    async fn pause(&mut self, time: Duration) {
        self.screen.meanwhile(tokio::time::sleep(time)).await;
    }
}

async fn read(response: Response) -> reqwest::Result<Result<Answer, Failure>> {
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(asked_pause).unwrap_or_default();
    let address = response.url().clone();
    let read = serde_json::from_slice::<Answer>(&response.bytes().await?);
    let (said, is_passing) = match read {
        Ok(answer) if status.is_success() => return Ok(Ok(answer)),
        Ok(Answer { error: Some(error), retryable, .. }) => (error, retryable),
        // Whatever stands before the functions.
        _ => (format!("{address} answered {status}."), status.is_server_error() || status == 429),
    };
    Ok(Err(Failure(End(Exit::Refused, said), is_passing.then_some(retry_after))))
}

/// Returns the pause that `Retry-After` asks for, in seconds or by a date. It is an hour at most.
fn asked_pause(said: &str) -> Option<Duration> {
    let asked = match said.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let now = UNIX_EPOCH + Duration::from_millis(clock::unix_ms().try_into().unwrap_or_default());
            httpdate::parse_http_date(said).ok()?.duration_since(now).unwrap_or_default()
        }
    };
    Some(asked.min(LONGEST_RETRY_AFTER))
}

/// Returns the innermost cause of an error, which says most.
fn root(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), root)
}

/// Removes control characters, so that text from a server cannot move the cursor.
fn printable(said: &str) -> String {
    said.replace(char::is_control, " ")
}

/// Returns a variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the address without the slash at its end. Refuses to send a token unencrypted over a network.
fn deployed(url: &str) -> Result<String, End> {
    let is_safe = url.parse().is_ok_and(|url: Url| {
        url.scheme() == "https" || matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
    });
    if is_safe {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    Err(unusable(format!("WPP_URL={url} is not an address such as https://example.com/functions/v1")))
}

/// Makes a client for the internet, with this machine's root certificates and its proxy.
fn client() -> reqwest::Result<Client> {
    // If one is set already, it was set on purpose.
    let _ = default_provider().install_default();
    Client::builder().redirect(reqwest::redirect::Policy::none()).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_obeyed_for_an_hour_at_most() {
        for (said, seconds) in [
            ("7", Some(7)),
            ("86400", Some(3600)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", Some(0)),
            ("Tue, 31 Dec 2999 23:59:59 GMT", Some(3600)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(asked_pause(said).map(|pause| pause.as_secs()), seconds, "{said}");
        }
    }
}
