// What the page says about a number, and the one thing to do: a view in, words out. Nothing here touches the document.

/** Stuck, and new credentials are the way on. */
const CONNECT_AGAIN = new Set(['session_lost', 'start_stuck', 'api_key_rejected']);

const SIGN_IN = new Set(['sign_in_expired', 'unauthorized']);

/** Whether a person has to sign in again. */
export const isSignedOut = ({ code }) => SIGN_IN.has(code);

export const loading = { kind: 'loading', title: 'loading' };
export const nothing = { kind: 'nothing', title: 'nothing', text: 'nothingText', act: 'connect' };
export const starting = { kind: 'starting', title: 'starting', text: 'startingText' };

/** The card of a number; `title` and `text` are keys of text.js, `said` is a sentence of the functions. */
export function cardOf(view) {
  const { failure, trouble, status, code, message } = view;
  if (failure) return cardOfFailure(failure);
  if (trouble) {
    const known = status ? { status, seenAt: view.seen_at ?? null } : null;
    return { kind: 'outage', title: 'outage', said: trouble.error, text: 'outageText', known, check: true };
  }
  if (view.paused) return { kind: 'paused', title: 'paused', text: 'pausedText', act: 'go-on' };
  if (status === 'connected') {
    return { kind: 'connected', title: 'connected', text: 'connectedText', note: code ? message : null, check: true };
  }
  if (CONNECT_AGAIN.has(code)) {
    return { kind: 'stuck', title: 'stuck', said: firstSentence(message), act: 'connect-again' };
  }
  if (code === 'passkey_required') return { kind: 'stuck', title: 'stuck', said: message };
  if (status === 'qr_issued') {
    const { qrcode: qr, format, qr_good_until: goodUntil, seen_at: seenAt } = view;
    return { kind: 'scan', title: 'scan', text: 'scanText', note: code ? message : null, qr, format, goodUntil, seenAt };
  }
  if (status === 'disconnected') {
    return { kind: 'disconnected', title: 'disconnected', text: 'disconnectedText', act: 'link' };
  }
  return starting;
}

function cardOfFailure(failure) {
  const { code, error, retryable } = failure;
  if (isSignedOut(failure)) return { kind: 'expired', title: 'expired', text: 'expiredText', act: 'sign-in' };
  if (CONNECT_AGAIN.has(code)) {
    return { kind: 'stuck', title: 'stuck', said: firstSentence(error), act: 'connect-again' };
  }
  const card = { kind: 'error', title: 'error', said: error, text: error ? null : 'unreachable' };
  return { ...card, act: retryable ? 'retry' : 'reload' };
}

/** What is wrong, without what to do: the page's own button does that. */
function firstSentence(text) {
  return text?.match(/^.*?[.!?](?=\s|$)/)?.[0] ?? text;
}

/** The word of a number's state in the list. */
export function stateOf(answer) {
  if (!answer) return 'checking';
  if (!answer.ok) return answer.retryable ? 'unknown' : 'attention';
  return CONNECT_AGAIN.has(answer.code) || answer.code === 'passkey_required' ? 'attention' : answer.status;
}
