"""`make link`: links a number in the terminal, using only the three functions.

WPP_URL and WPP_TOKEN say which functions to use; by default those of `make dev`. SESSION names a number, ADD=1 asks for one
more, and AGAIN=1 for new credentials of a number that is lost. WAIT_S is how many seconds the phone has to scan the code. The
exit codes: 0 (connected), 1 (refused, with the reason), 3 (not scanned in time) and 130 (Ctrl-C).
"""

import json
import os
import re
import signal
import sys
import tempfile
import textwrap
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

# In seconds. The pause between two requests doubles with each failure. API Gateway itself gives up after 30 s.
PAUSE, LONGEST_PAUSE, TIMEOUT = 2, 15, 35

# How many seconds the phone has to scan the code.
WAIT_S = int(os.environ.get("WAIT_S") or 300)

# Switch to the terminal's alternate screen without a cursor, and back: the person's own lines stay.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"

# The functions draw a code's light modules as characters, so these must be light on dark in every terminal.
WHITE_ON_BLACK, PLAIN = "\x1b[38;5;231;48;5;16m", "\x1b[0m"

# The rows that the text below a code may take.
TEXT_ROWS = 4

# What `make dev` leaves: the address of the functions, and a user's token.
RUNNING = Path(__file__).parent.parent / (os.environ.get("WPP_LOCAL_DATA") or ".local") / "running.json"

# No token goes unencrypted over a network.
ADDRESS = re.compile(r"(https://[\w.:\[\]-]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?)(/[!-~]*)?")

# Only new credentials help such a number.
LOST = ("api_key_rejected", "session_lost", "start_stuck")

ENGLISH = {
    "starting": "Getting the code ready…",
    "scan": "Scan it with the phone: WhatsApp, Linked devices, Link a device. The code renews itself.",
    "small": "The code does not fit: it needs {} × {} characters.",
    "picture": "Open this picture and scan the code there:",
    "connected": "The number {} is connected.",
    "late": "Time is up, and the number is not connected.",
    "interrupted": "Interrupted.",
    "rerun": "Run the same command again: it continues with this number.",
    "again": "You can connect it again from here: make link AGAIN=1{}",
    "sign in": "To do so here, put a new token in WPP_TOKEN, or restart `make dev`.",
    "trying": "This command keeps trying.",
    "silent": "{} does not answer.",
    "strange": "{} answered with the HTTP status {}.",
    "nothing runs": "The functions are not running here: start `make dev` in another terminal, or set WPP_URL and WPP_TOKEN.",
}

RUSSIAN = {
    "starting": "Готовим код…",
    "scan": "Отсканируйте код телефоном: WhatsApp, «Связанные устройства», «Привязка устройства». Код обновляется сам.",
    "small": "Код не помещается: нужно {} × {} знаков.",
    "picture": "Откройте эту картинку и отсканируйте код с неё:",
    "connected": "Номер {} подключён.",
    "late": "Время вышло, а номер пока не подключён.",
    "interrupted": "Прервано.",
    "rerun": "Запустите ту же команду ещё раз: она продолжит с этим номером.",
    "again": "Подключить его заново можно и отсюда: make link AGAIN=1{}",
    "sign in": "Здесь для этого нужен новый токен в WPP_TOKEN или перезапуск `make dev`.",
    "trying": "Эта команда сама попробует снова.",
    "silent": "{} не отвечает.",
    "strange": "{} отвечает ошибкой HTTP {}.",
    "nothing runs": "Функции здесь не запущены: запустите `make dev` в другом терминале или укажите WPP_URL и WPP_TOKEN.",
}

LOCALE = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := os.environ.get(name))), "")
LANGUAGE, WORDS = ("ru", RUSSIAN) if LOCALE.startswith("ru") else ("en", ENGLISH)


class End(Exception):
    """Nothing more is tried: a sentence, the exit code, the functions' code."""


class Trouble(Exception):
    """The request failed, but can succeed later: a sentence, the seconds until then."""


class AsItIs(urllib.request.HTTPErrorProcessor):
    """Returns an answer of any status. It follows no redirect, which could take the token elsewhere."""

    def http_response(self, _request, response):
        return response

    https_response = http_response


class Functions:
    """The three functions at an address, for one user."""

    def __init__(self):
        self.url, self.token = os.environ.get("WPP_URL", "").rstrip("/"), os.environ.get("WPP_TOKEN", "")
        self.silent = WORDS["silent"]
        if not self.url:
            self.silent = WORDS["nothing runs"]
            try:
                running = json.loads(RUNNING.read_text())
            except (OSError, ValueError):
                raise End(self.silent, 1) from None
            self.url, self.token = running["functions"], running["token"]
        address = ADDRESS.fullmatch(self.url)
        if not address:
            raise End("WPP_URL must be an address such as https://example.com/functions/v1.", 1)
        self.host = address[1]
        # `http.client` would refuse such a header with an error that shows the token.
        if not self.token or not self.token.isascii() or not self.token.isprintable():
            raise End("WPP_TOKEN must be the token of a signed-in user.", 1)
        proxy = [urllib.request.ProxyHandler({})] if self.host.startswith("http:") else []
        self.opener = urllib.request.build_opener(AsItIs, *proxy)
        self.has_answered = False

    def ask(self, name, body, accept="application/json"):
        """Returns the answer: its JSON, or the bytes of another media type."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", "Accept": accept}
        headers |= {"Accept-Language": LANGUAGE, "User-Agent": "make link"}
        request = urllib.request.Request(f"{self.url}/{name}", json.dumps(body).encode(), headers)
        try:
            with self.opener.open(request, timeout=TIMEOUT) as response:
                status, content = response.status, response.read()
        except (OSError, HTTPException, OverflowError):
            # If nothing has ever answered, the address is wrong or nothing runs there.
            said = self.silent.format(self.host)
            raise Trouble(said, 0) if self.has_answered else End(said, 1) from None
        self.has_answered = True
        if status == 200 and response.headers.get_content_type() == accept != "application/json":
            return content
        try:
            answer = dict(json.loads(content))
        except (TypeError, ValueError):
            answer = {}
        if status == 200 and "state" in answer:
            return answer
        # A gateway has errors of its own.
        said = answer.get("error") or WORDS["strange"].format(self.host, status)
        if not answer.get("retryable", status >= 500 or status == 429):
            raise End(said, 1, "sign in" if status == 401 else answer.get("code"))
        retry_after = response.headers.get("Retry-After", "")
        raise Trouble(said, int(retry_after) if retry_after.isdecimal() else 0)


def printable(text):
    """Replaces control characters: the text of a server must not move the cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


class Screen:
    """On a terminal, the state is drawn in place. Otherwise, each new sentence is a line."""

    def __init__(self):
        self.is_terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.code, self.texts = [], []

    def write(self, text):
        """Writes to a terminal only."""
        if self.is_terminal:
            print(text, end="", flush=True)

    def fits(self, code):
        """Whether a code can be drawn here, with the text below it."""
        if not code or not self.is_terminal:
            return False
        size = os.get_terminal_size()
        return len(code) + TEXT_ROWS <= size.lines and len(code[0]) <= size.columns

    def show(self, said, code=(), picture=None):
        """Shows a sentence and a code: its lines if they fit, otherwise the name of its picture."""
        old, self.code = self.texts, code
        self.texts = [WORDS["picture"], picture, said] if picture else [said]
        if self.is_terminal:
            self.draw()
        for text in self.texts:
            if not self.is_terminal and text not in old:
                print(printable(text), flush=True)

    def draw(self):
        size = os.get_terminal_size()
        lines, texts = [], self.texts
        if self.fits(self.code):
            lines, texts = [f"{WHITE_ON_BLACK}{printable(line)}{PLAIN}" for line in self.code], self.texts[-1:]
        elif self.code:
            texts = [WORDS["small"].format(len(self.code[0]), len(self.code) + TEXT_ROWS), *self.texts]
        for text in texts:
            lines += textwrap.wrap(printable(text), max(size.columns - 1, 1), break_long_words=False)
        # The lines are written over the earlier ones, so nothing flickers.
        drawn = "\n".join(f"\x1b[2K{line}" for line in lines[: size.lines])
        self.write(f"\x1b[H{drawn}\x1b[J")

    def wait(self, seconds):
        """Waits, and redraws: the person may change the size of the window."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.is_terminal:
                self.draw()
            time.sleep(min(left, 1))


class Link:
    """One number, from its creation to the linked phone."""

    def __init__(self, functions, screen):
        self.functions, self.screen = functions, screen
        self.session, self.is_new = os.environ.get("SESSION"), os.environ.get("ADD") == "1"
        self.code, self.qrcode, self.drawings, self.picture = None, None, {}, None
        self.end = time.monotonic() + WAIT_S

    def run(self):
        """Returns how it ended: the last sentences, the exit code."""
        try:
            self.screen.write(ENTER)
            return self.link(), 0
        except End as end:
            said, exit_code, code = (*end.args, None)[:3]
        except KeyboardInterrupt:
            said, exit_code, code = WORDS["interrupted"], 130, None
        finally:
            self.screen.write(LEAVE)
        return f"{said} {self.hint(exit_code, code)}", exit_code

    def hint(self, exit_code, code):
        """Returns what the person can do here."""
        if code in LOST and (self.session or not self.is_new):
            return WORDS["again"].format(f" SESSION={self.session}" if self.session else "")
        if code == "sign in":
            return WORDS["sign in"]
        return WORDS["rerun"] if exit_code != 1 or code == "disconnected" else ""

    def link(self):
        """Returns what to say of the number once it is connected."""
        self.screen.show(WORDS["starting"])
        again = os.environ.get("AGAIN") == "1"
        wanted = {"session": self.session, "add_new": self.is_new, "force_recreate": again}
        seen = self.insist("wpp-create", wanted)
        self.session = seen["session"]
        while seen["state"] != "connected":
            self.code = seen.get("code")
            if seen["state"] == "disconnected":
                raise End(seen["message"], 1, self.code or "disconnected")
            self.show(seen)
            self.wait(pause_after(seen))
            seen = self.insist("wpp-status", {"session": self.session, "force": True})
        return f"{WORDS['connected'].format(self.session)} {seen.get('message', '')}"

    def insist(self, name, body):
        """Asks until there is an answer. Each failure starts the time for the phone again."""
        pause = PAUSE
        while True:
            try:
                return self.functions.ask(name, body)
            except Trouble as trouble:
                said, retry_after = trouble.args
            # The wait would be longer than the phone has.
            if retry_after > WAIT_S:
                raise End(said, 1)
            self.screen.show(f"{said} {WORDS['trying']}")
            self.end = time.monotonic() + WAIT_S
            self.wait(max(pause, retry_after))
            pause = min(2 * pause, LONGEST_PAUSE)

    def show(self, seen):
        """Shows a state, with its code. Before a passkey is confirmed, the code cannot be scanned."""
        qrcode = seen.get("qrcode") if self.code != "passkey_required" else None
        if qrcode != self.qrcode:
            self.qrcode, self.drawings = qrcode, {}
        said, lines, picture = seen.get("message") or WORDS["scan"], [], None
        try:
            if qrcode and self.screen.is_terminal and seen["format"] == "text":
                lines = self.drawing("text/plain").decode().splitlines()
            if qrcode and not self.screen.fits(lines):
                picture = self.saved(self.drawing("image/png"))
        except (Trouble, End) as failure:
            # The next status tells why there is no code.
            said = failure.args[0]
        self.screen.show(said, lines, picture)

    def drawing(self, media_type):
        """Returns the drawing of the code. It asks for each one once."""
        if media_type not in self.drawings:
            self.drawings[media_type] = self.functions.ask("wpp-qr", {"session": self.session}, media_type)
        return self.drawings[media_type]

    def saved(self, png):
        """Saves the picture until the end of this program, and returns the name of its file."""
        self.picture = self.picture or tempfile.NamedTemporaryFile(prefix="whatsapp-", suffix=".png")
        Path(self.picture.name).write_bytes(png)
        return self.picture.name

    def wait(self, seconds):
        left = self.end - time.monotonic()
        self.screen.wait(min(seconds, left))
        if seconds >= left:
            raise End(WORDS["late"], 3, self.code)


def pause_after(seen):
    """Returns the seconds until the next question, as the answer advises. While a code is shown, somebody may scan it now."""
    advised = seen.get("poll_after_ms", 1000 * PAUSE) / 1000
    return min(advised, PAUSE) if "qrcode" in seen else advised


def main():
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    # A reader such as `head` may end first.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        said, exit_code = Link(Functions(), Screen()).run()
    except End as end:
        said, exit_code = end.args
    print(printable(said).strip(), file=sys.stderr if exit_code else sys.stdout)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
