// Watches a number until nothing more is to come: `wpp-qr` for the code, `wpp-status` for all other news.

/** The pause between two looks if the answer names none, and the longest one while a code is shown. */
export const PAUSE_MS = 2_000;

/** The pause once the next code is due. */
const DUE_PAUSE_MS = 750;

/** A code stays at least this long: the platform replaces it after 20 to 30 s. */
const CODE_TTL_MS = 15_000;

/** The longest pause after several failures in a row. */
const LONGEST_PAUSE_MS = 60_000;

/** The longest `Retry-After` that is obeyed. */
const LONGEST_RETRY_AFTER_MS = 3_600_000;

/** A person who links a phone needs no longer. */
const LIMIT_MS = 5 * 60_000;

/**
 * Yields each look at the number, of which `known` was seen last: `wpp-status`'s answer, with `trouble` if the last question failed and
 * may succeed later, `failure` if it will not, and `paused` once the limit is over.
 */
export async function* watch(api, session, known, signal) {
  let view = known;
  let end = Date.now() + LIMIT_MS;
  let codeSince = Date.now();
  let failures = 0;
  if (view?.isLive && view.poll_after_ms) await pause(askAgainIn(view, failures, codeSince), signal);
  for (;;) {
    await visible(signal);
    for await (const seen of look(api, session, view, signal)) {
      if (seen.qrcode !== view?.qrcode) codeSince = Date.now();
      view = seen;
      yield view;
    }
    if (isOver(view)) return;
    // An outage is no fault of the person: it is watched to its end.
    if (view.trouble) end = Date.now() + LIMIT_MS;
    if (Date.now() >= end) {
      yield { ...view, paused: true };
      return;
    }
    failures = view.trouble ? failures + 1 : 0;
    await pause(askAgainIn(view, failures, codeSince), signal);
  }
}

/** Looks once. A code that replaces another is yielded before its status is known: it can be scanned at once. */
async function* look(api, session, known, signal) {
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

/** Whether a live look has shown a code that waits for a phone, and nothing else that a person must know. */
function isPlainCode(view) {
  return Boolean(view?.isLive) && view.status === 'qr_issued' && (!view.code || view.code === 'qr_not_scanned');
}

/** Whether another look would tell nothing new. */
function isOver({ failure, trouble, poll_after_ms }) {
  return Boolean(failure) || (!trouble && poll_after_ms == null);
}

function askAgainIn(view, failures, codeSince) {
  if (view.trouble) return pauseAfter(view.trouble, failures);
  if (!isPlainCode(view)) return view.poll_after_ms;
  const longest = Date.now() - codeSince < CODE_TTL_MS ? PAUSE_MS : DUE_PAUSE_MS;
  return Math.min(view.poll_after_ms ?? longest, longest);
}

/** The pause after so many failures in a row. */
export function pauseAfter({ retryAfterMs }, failures) {
  return Math.max(retryAfterMs, Math.min(PAUSE_MS * 2 ** (failures - 1), LONGEST_PAUSE_MS));
}

/** The pause that `Retry-After` asks for, in seconds or by a date; 0 without one. */
export function retryAfterMs(said) {
  const text = said?.trim() ?? '';
  const asked = /^\d+$/.test(text) ? 1000 * Number(text) : Date.parse(text) - Date.now();
  return Math.min(Math.max(asked || 0, 0), LONGEST_RETRY_AFTER_MS);
}

/** Waits for so long, or until the signal ends that. */
export const pause = (ms, signal) => until(signal, (done) => {
  const timer = setTimeout(done, ms);
  return () => clearTimeout(timer);
});

/** A hidden page asks nothing. */
const visible = (signal) => until(signal, (done) => {
  const check = () => document.hidden || done();
  document.addEventListener('visibilitychange', check);
  check();
  return () => document.removeEventListener('visibilitychange', check);
});

/** Waits for what `begin` waits for, or until the signal ends that; `begin` returns what tidies up. */
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
