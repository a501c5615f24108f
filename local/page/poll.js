// Polls a number until its state can no longer change: `wpp-qr` for the code, `wpp-status` for everything else.

/** The pause between two polls if the answer gives none, and the longest pause while a code is shown. */
export const PAUSE_MS = 2_000;

/** The pause once the next code is due. */
const DUE_PAUSE_MS = 750;

/** A code is valid for at least this long: the platform replaces it after 20 to 30 s. */
const CODE_TTL_MS = 15_000;

/** The longest pause after several failures in a row. */
const LONGEST_PAUSE_MS = 60_000;

/** The longest `Retry-After` that is obeyed. */
const LONGEST_RETRY_AFTER_MS = 3_600_000;

/** How long a number is watched. Linking a phone does not take longer. */
const WATCH_BUDGET_MS = 5 * 60_000;

/**
 * Yields a view of the number after each poll, starting from `known`. A view is `wpp-status`'s answer, plus `trouble` if the last
 * request failed and may succeed later, `failure` if it cannot succeed, or `paused` once the time limit is over.
 */
export async function* watch(api, session, known, signal) {
  let view = known;
  let end = Date.now() + WATCH_BUDGET_MS;
  let codeSince = Date.now();
  let failures = 0;
  if (view?.isLive && view.poll_after_ms) await pause(pauseBeforeNextPoll(view, failures, codeSince), signal);
  for (;;) {
    await visible(signal);
    for await (const seen of pollOnce(api, session, view, signal)) {
      if (seen.qrcode !== view?.qrcode) codeSince = Date.now();
      view = seen;
      yield view;
    }
    if (isOver(view)) return;
    // An outage does not count against the limit: polling continues until it ends.
    if (view.trouble) end = Date.now() + WATCH_BUDGET_MS;
    if (Date.now() >= end) {
      yield { ...view, paused: true };
      return;
    }
    failures = view.trouble ? failures + 1 : 0;
    await pause(pauseBeforeNextPoll(view, failures, codeSince), signal);
  }
}

/** Polls once. Yields a new code before its status is known, so that it can be scanned at once. */
async function* pollOnce(api, session, known, signal) {
  const qr = await api.qr(session, signal);
  if (!qr.ok && !qr.retryable) return yield { failure: qr };
  if (qr.ok && qr.qr && isPlainCode(known)) {
    yield { ...known, trouble: null, qrcode: qr.qr, format: qr.format, poll_after_ms: qr.poll_after_ms };
    if (qr.qr === known.qrcode) return;
  }
  // While WhatsApp cannot be reached, the last known state is the answer.
  const status = await api.status({ session, force: qr.ok }, signal);
  if (!status.ok && !status.retryable) return yield { failure: status };
  if (!status.ok) return yield { ...known, trouble: status };
  yield { ...status, isLive: qr.ok, trouble: qr.ok ? null : qr };
}

/** Whether the last live poll showed a code and no problem that the person must act on. */
function isPlainCode(view) {
  return Boolean(view?.isLive) && view.status === 'qr_issued' && (!view.code || view.code === 'qr_not_scanned');
}

/** Whether polling again cannot change anything. */
function isOver({ failure, trouble, poll_after_ms }) {
  return Boolean(failure) || (!trouble && poll_after_ms == null);
}

/** Returns the pause before the next poll. */
function pauseBeforeNextPoll(view, failures, codeSince) {
  if (view.trouble) return pauseAfter(view.trouble, failures);
  if (!isPlainCode(view)) return view.poll_after_ms;
  const longest = Date.now() - codeSince < CODE_TTL_MS ? PAUSE_MS : DUE_PAUSE_MS;
  return Math.min(view.poll_after_ms ?? longest, longest);
}

/** Returns the pause after `failures` failures in a row. */
export function pauseAfter({ retryAfterMs }, failures) {
  return Math.max(retryAfterMs, Math.min(PAUSE_MS * 2 ** (failures - 1), LONGEST_PAUSE_MS));
}

/** The pause that `Retry-After` asks for, in seconds or as a date; 0 if there is no such header. */
export function retryAfterMs(header) {
  const text = header?.trim() ?? '';
  const asked = /^\d+$/.test(text) ? 1000 * Number(text) : Date.parse(text) - Date.now();
  return Math.min(Math.max(asked || 0, 0), LONGEST_RETRY_AFTER_MS);
}

/** Waits for `ms`, or until the signal aborts. */
export const pause = (ms, signal) => until(signal, (done) => {
  const timer = setTimeout(done, ms);
  return () => clearTimeout(timer);
});

/** Waits until the page is visible: a hidden page does not poll. */
const visible = (signal) => until(signal, (done) => {
  const check = () => document.hidden || done();
  document.addEventListener('visibilitychange', check);
  check();
  return () => document.removeEventListener('visibilitychange', check);
});

/** Starts `begin` and waits until it calls back or the signal aborts. `begin` returns its cleanup function. */
async function until(signal, begin) {
  signal.throwIfAborted();
  let abort;
  let end;
  try {
    await new Promise((resolve, reject) => {
      abort = () => reject(signal.reason);
      signal.addEventListener('abort', abort);
      end = begin(resolve);
    });
  } finally {
    signal.removeEventListener('abort', abort);
    end?.();
  }
}
