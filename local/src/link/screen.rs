//! What a person sees of it: on a terminal the code with a countdown, redrawn each second; else a line for whatever is new.

use std::env;
use std::io::{self, IsTerminal, Stdout, Write, stdout};
use std::pin::pin;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use qrcode::render::unicode::Dense1x2::{Dark, Light};
use qrcode::{EcLevel, QrCode};
use rustix::termios::tcgetwinsize;
use tempfile::NamedTempFile;

use super::printable;
use crate::clock::unix_ms;

/// How long a code is valid, if the functions do not say so.
const LIFE: Duration = Duration::from_secs(25);

/// How a PNG begins in base64.
const PNG: &str = "iVBORw0KGgo";

/// Black on white, whatever colors the terminal's theme has.
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";

/// The most lines that the text below the code takes, including the line that the cursor is left in.
const ROWS_BELOW: usize = 4;

/// Switches to a second screen without the cursor, so that the person's own lines are kept; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Our own sentences; those of the functions come from them.
pub struct Words {
    pub language: &'static str,
    pub starting: &'static str,
    pub scan: &'static str,
    pub left: &'static str,
    pub renewing: &'static str,
    pub small: &'static str,
    pub picture: &'static str,
    pub connected: &'static str,
    pub gave_up: &'static str,
    pub unreachable: &'static str,
    pub nothing_runs: &'static str,
    pub interrupted: &'static str,
}

const ENGLISH: Words = Words {
    language: "en",
    starting: "Getting the code ready…",
    scan: "Scan it with the phone: WhatsApp, Linked devices, Link a device.",
    left: "A new code in {} s.",
    renewing: "A new code is on its way…",
    small: "The code needs {columns} columns and {rows} rows: make the window larger, or its letters smaller.",
    picture: "The platform sent a picture, which a terminal cannot show. Open it, and scan it there: {}",
    connected: "{} is connected.",
    gave_up: "No phone has scanned the code within {} s. The same command goes on with this number.",
    unreachable: "No answer from {}.",
    nothing_runs: "Nothing runs here: start it with `make dev` in another terminal, or set WPP_URL and WPP_TOKEN.",
    interrupted: "Interrupted. The same command goes on with this number.",
};

const RUSSIAN: Words = Words {
    language: "ru",
    starting: "Готовим код…",
    scan: "Отсканируйте его телефоном: WhatsApp, «Связанные устройства», «Привязка устройства».",
    left: "Новый код через {} с.",
    renewing: "Скоро появится новый код…",
    small: "Коду нужно столбцов: {columns}, строк: {rows}; увеличьте окно или уменьшите шрифт.",
    picture: "Платформа прислала картинку, терминал её не покажет. Откройте её и отсканируйте: {}",
    connected: "{} подключён.",
    gave_up: "За {} с код никто не отсканировал. Та же команда продолжит с этим номером.",
    unreachable: "Нет ответа от {}.",
    nothing_runs: "Здесь ничего не запущено: запустите `make dev` в другом терминале или задайте WPP_URL и WPP_TOKEN.",
    interrupted: "Прервано. Та же команда продолжит с этим номером.",
};

impl Words {
    /// Returns the texts in the terminal's language, if it is one of the product's.
    pub fn from_env() -> &'static Self {
        let set = ["LC_ALL", "LC_MESSAGES", "LANG"].map(|name| env::var(name).unwrap_or_default());
        let first = set.iter().find(|value| !value.is_empty());
        if first.is_some_and(|language| language.starts_with("ru")) { &RUSSIAN } else { &ENGLISH }
    }
}

/// Dropped, it leaves the terminal as it was.
pub struct Screen {
    words: &'static Words,
    out: Stdout,
    is_terminal: bool,
    has_colour: bool,
    code: Option<Code>,
    said: String,
}

/// A code as it came, as it is drawn, and when it ends.
struct Code {
    qr: String,
    drawn: Drawn,
    ends_ms: i64,
}

enum Drawn {
    /// Lines of half blocks, and how many columns they take.
    Blocks(Vec<String>, usize),
    /// A picture, which is there for as long as it is the code.
    File(NamedTempFile),
}

impl Screen {
    pub fn new(words: &'static Words) -> io::Result<Self> {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let out = stdout();
        let is_terminal = out.is_terminal() && env::var_os("TERM").is_some_and(|term| term != "dumb");
        let has_colour = is_terminal && !is_set("NO_COLOR");
        let mut screen = Self { words, out, is_terminal, has_colour, code: None, said: String::new() };
        if is_terminal {
            screen.out.write_all(ENTER.as_bytes())?;
        }
        screen.say(words.starting)?;
        Ok(screen)
    }

    /// Shows the code, with the time for which it is valid, or that there is no code now. Shows `said` as well.
    pub fn show(&mut self, code: Option<(&str, Option<Duration>)>, said: &str) -> io::Result<()> {
        let Some((qr, good_for)) = code else {
            self.code = None;
            return self.say(said);
        };
        let known = self.code.take().filter(|known| known.qr == qr);
        let is_new = known.is_none();
        let mut code = match known {
            Some(known) => known,
            None => Code { qr: qr.to_owned(), drawn: draw(qr, self.has_colour)?, ends_ms: 0 },
        };
        if let Some(left) = good_for.or(is_new.then_some(LIFE)) {
            code.ends_ms = unix_ms() + i64::try_from(left.as_millis()).unwrap_or_default();
        }
        if is_new && !self.is_terminal {
            let lines = match &code.drawn {
                Drawn::Blocks(lines, _) => lines.join("\n"),
                Drawn::File(file) => self.words.picture.replace("{}", &file.path().display().to_string()),
            };
            writeln!(self.out, "{lines}")?;
        }
        self.code = Some(code);
        self.say(said)
    }

    /// Shows a text in addition to the code.
    pub fn say(&mut self, said: &str) -> io::Result<()> {
        let said = printable(said);
        let is_new = said != self.said;
        self.said = said;
        if self.is_terminal {
            return self.redraw();
        }
        if is_new { writeln!(self.out, "{}", self.said) } else { Ok(()) }
    }

    /// Does the work while the countdown continues.
    pub async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                // A terminal that is gone has its own signal for that.
                () = tokio::time::sleep(Duration::from_secs(1)), if self.is_terminal => drop(self.redraw()),
            }
        }
    }

    fn redraw(&mut self) -> io::Result<()> {
        let mut lines = Vec::new();
        let mut left = None;
        if let Some(code) = &self.code {
            match &code.drawn {
                Drawn::Blocks(blocks, columns) => lines.extend(self.fitting(blocks, *columns)),
                Drawn::File(file) => {
                    lines.push(self.words.picture.replace("{}", &file.path().display().to_string()));
                }
            }
            // Rounded up: a code with a moment left is not over.
            let seconds = (code.ends_ms - unix_ms() + 999) / 1000;
            left = Some(match seconds {
                1.. => self.words.left.replace("{}", &seconds.to_string()),
                _ => self.words.renewing.to_owned(),
            });
        }
        lines.push(self.said.clone());
        lines.extend(left);
        // Written over what was there, line by line: nothing flickers.
        let lines: String = lines.iter().map(|line| format!("{line}\x1b[K\n")).collect();
        write!(self.out, "\x1b[H{lines}\x1b[J")?;
        self.out.flush()
    }

    /// Returns the blocks, or a sentence on how much room they need if the window is too small.
    fn fitting(&self, blocks: &[String], columns: usize) -> Vec<String> {
        let rows = blocks.len() + ROWS_BELOW;
        let fits = tcgetwinsize(&self.out)
            .is_ok_and(|window| usize::from(window.ws_row) >= rows && usize::from(window.ws_col) >= columns);
        if fits {
            return blocks.to_vec();
        }
        let small = self.words.small.replace("{columns}", &columns.to_string());
        vec![small.replace("{rows}", &rows.to_string())]
    }
}

/// Draws a pairing text as half blocks, with the margin that a phone needs around them.
fn draw(qr: &str, has_colour: bool) -> io::Result<Drawn> {
    let unreadable = || io::Error::other("The code that the platform sent cannot be drawn.");
    let picture = qr.strip_prefix("data:image/").and_then(|picture| picture.split_once(";base64,"));
    let picture = picture.map(|(_, base64)| base64).or(qr.starts_with(PNG).then_some(qr));
    if let Some(base64) = picture {
        let mut file = tempfile::Builder::new().prefix("whatsapp-").suffix(".png").tempfile()?;
        file.write_all(&STANDARD.decode(base64).map_err(|_| unreadable())?)?;
        return Ok(Drawn::File(file));
    }
    // The smallest: a screen has no stains to be robust against.
    let code = QrCode::with_error_correction_level(qr, EcLevel::L).map_err(|_| unreadable())?;
    let mut blocks = code.render();
    // Without colors, the terminal is assumed to be dark, with light text.
    let blocks = if has_colour {
        blocks.dark_color(Dark).light_color(Light)
    } else {
        blocks.dark_color(Light).light_color(Dark)
    };
    let blocks = blocks.build();
    let columns = blocks.lines().map(|line| line.chars().count()).max().unwrap_or_default();
    let lines = blocks.lines().map(|line| match has_colour {
        true => format!("{BLACK_ON_WHITE}{line}\x1b[0m"),
        false => line.to_owned(),
    });
    Ok(Drawn::Blocks(lines.collect(), columns))
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_terminal {
            // The terminal may be gone.
            let _ = self.out.write_all(LEAVE.as_bytes()).and_then(|()| self.out.flush());
        }
    }
}
