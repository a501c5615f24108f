//! One session: from its creation to the phone that scanned its QR.

use serde::{Deserialize, Serialize};

/// How long a QR is shown before the next one takes its place, in milliseconds.
const QR_TURN_MS: i64 = 20_000;

/// Enough polls for a session that stays `starting` until a test changes it.
const FOREVER: u32 = u32::MAX;

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Session {
    pub key: String,
    pub webhook: Option<String>,
    /// The platform denies that it exists, until it is created again.
    pub forgotten: bool,
    phase: Phase,
    /// The word that a test wants said, whatever the phase is called.
    word: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// It was never started.
    #[default]
    Offline,
    Starting {
        polls_left: u32,
        #[serde(default)]
        qr_from_ms: i64,
    },
    QrRequired {
        since_ms: i64,
    },
    Connected,
}

impl Session {
    pub fn status(&self) -> &str {
        self.word.as_deref().unwrap_or(match self.phase {
            Phase::Offline => "offline",
            Phase::Starting { .. } => "starting",
            Phase::QrRequired { .. } => "qr_required",
            Phase::Connected => "connected",
        })
    }

    /// Starts it, unless it runs, and gives the word for what it does now. Its QR is shown after so many polls and so much time.
    pub fn start(&mut self, polls_until_qr: u32, ms_until_qr: i64, now_ms: i64) -> &'static str {
        if self.phase == Phase::Offline {
            self.enter(Phase::Starting { polls_left: polls_until_qr, qr_from_ms: now_ms + ms_until_qr });
            self.show_qr_if_due(now_ms);
        }
        match self.phase {
            Phase::Connected => "connected",
            _ => "starting",
        }
    }

    /// Counts a poll: a starting session needs one poll less until it shows its QR.
    pub fn count_poll(&mut self, now_ms: i64) {
        if let Phase::Starting { polls_left, .. } = &mut self.phase
            && *polls_left != FOREVER
        {
            *polls_left = polls_left.saturating_sub(1);
            self.show_qr_if_due(now_ms);
        }
    }

    /// Shows the first QR if nothing more is to be waited for.
    pub fn show_qr_if_due(&mut self, now_ms: i64) {
        if let Phase::Starting { polls_left: 0, qr_from_ms } = self.phase
            && qr_from_ms <= now_ms
        {
            self.phase = Phase::QrRequired { since_ms: now_ms };
        }
    }

    /// Returns a number that tells the QR shown now from earlier and later ones, or `None` if no QR is shown.
    pub fn qr_turn(&self, now_ms: i64) -> Option<i64> {
        match self.phase {
            Phase::QrRequired { since_ms } => Some(now_ms - (now_ms - since_ms).rem_euclid(QR_TURN_MS)),
            _ => None,
        }
    }

    /// Has a phone scan the QR. Returns `false` if there is no QR to scan. A linked session stays linked.
    pub fn scan(&mut self) -> bool {
        if matches!(self.phase, Phase::QrRequired { .. }) {
            self.enter(Phase::Connected);
        }
        self.phase == Phase::Connected
    }

    /// Unlinks it from its phone; it can be started again.
    pub fn stop(&mut self) {
        self.enter(Phase::Offline);
    }

    /// Puts it into the state that `word` names (an unknown word shows a QR) and has it answer with that word.
    pub fn set_status(&mut self, word: &str, now_ms: i64) {
        self.enter(match word.to_lowercase().as_str() {
            "connected" => Phase::Connected,
            "starting" => Phase::Starting { polls_left: FOREVER, qr_from_ms: now_ms },
            "offline" => Phase::Offline,
            _ => Phase::QrRequired { since_ms: now_ms },
        });
        self.word = Some(word.to_owned());
    }

    pub fn forget(&mut self) {
        self.enter(Phase::Offline);
        self.webhook = None;
        self.forgotten = true;
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.word = None;
    }
}
