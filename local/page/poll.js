// Watches a number until nothing more is to come: `wpp-qr` for the code, `wpp-status` for whatever else is news.

/** Between two looks, where the answer does not say it. */
export const PAUSE_MS = 2_000;

/** The longest pause after one failure upon the other. */
const LONGEST_PAUSE_MS = 15_000;

/** No longer pause is worth obeying. */
const LONGEST_RETRY_AFTER_MS = 3_600_000;

/** Nobody stands before a page with the phone in hand for longer. */
const LIMIT_MS = 5 * 60_000;

/**
 * Each look at the number, of which `known` was seen last: `wpp-status`'s answer, with `trouble` where the last question failed and may
 * succeed later, `failure` where it will not, and `paused` once the limit is over.
 */
export async function* watch(api, session, known, signal) {
  const end = Date.now() + LIMIT_MS;
  let view = known;
  for (let failures = 0; ; ) {
    await visible(signal);
    view = await look(api, session, view, signal);
    if (isOver(view)) {
      yield view;
      return;
    }
    if (Date.now() >= end) {
      yield { ...view, paused: true };
      return;
    }
    yield view;
    failures = view.trouble ? failures + 1 : 0;
    await pause(askAgainIn(view, failures), signal);
  }
}

/** One look. A code that this watch has seen to be all there is to say is no news, and costs one request. */
async function look(api, session, known, signal) {
  const qr = await api.qr(session, signal);
  const isKnown = known?.isLive && known.status === 'qr_issued' && !known.code && qr.qr === known.qrcode;
  if (qr.ok && isKnown) return { ...known, trouble: null, poll_after_ms: qr.poll_after_ms };
  if (!qr.ok && !qr.retryable) return { failure: qr };
  // While WhatsApp is out of reach, the last known state is the answer.
  const status = await api.status({ session, force: qr.ok }, signal);
  if (!status.ok && !status.retryable) return { failure: status };
  if (!status.ok) return { ...known, trouble: status };
  return { ...status, isLive: qr.ok, trouble: qr.ok ? null : qr };
}

/** Whether to ask again would tell nothing new. */
function isOver({ failure, trouble, poll_after_ms }) {
  return Boolean(failure) || (!trouble && poll_after_ms == null);
}

function askAgainIn({ trouble, poll_after_ms }, failures) {
  if (!trouble) return poll_after_ms;
  return Math.max(trouble.retryAfterMs, Math.min(PAUSE_MS * 2 ** (failures - 1), LONGEST_PAUSE_MS));
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

/** A page that nobody sees asks nothing. */
const visible = (signal) => until(signal, (done) => {
  const look = () => document.hidden || done();
  document.addEventListener('visibilitychange', look);
  look();
  return () => document.removeEventListener('visibilitychange', look);
});

/** Waits for what `begin` waits for, or until the signal ends that; `begin` gives what tidies up. */
async function until(signal, begin) {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers();
  const abort = () => reject(signal.reason);
  signal.addEventListener('abort', abort);
  const end = begin(resolve);
  try {
    await promise;
  } finally {
    signal.removeEventListener('abort', abort);
    end();
  }
}
