// Turns a view of a number into a card: what the page says, and the one thing to do. Does not touch the document.

/** The codes of a stuck number that needs new credentials. */
const CONNECT_AGAIN = new Set(['session_lost', 'start_stuck', 'api_key_rejected']);

const SIGN_IN = new Set(['sign_in_expired', 'unauthorized']);

/** The codes of the platform's outages, which the page calls WhatsApp's. All other temporary errors are our service's. */
const WHATSAPP = /^(platform_|token_rejected$)/;

/** Whether only new credentials help. */
export const isStuck = ({ code }) => CONNECT_AGAIN.has(code);

/** Whether a person has to sign in again. */
export const isSignedOut = ({ code, retryable }) => SIGN_IN.has(code) && !retryable;

export const loading = { kind: 'loading', title: 'loading' };
export const noNumber = { kind: 'nothing', title: 'noNumber', text: 'noNumberText', act: 'connect' };
export const starting = { kind: 'starting', title: 'starting', text: 'startingText' };
const expired = { kind: 'expired', title: 'expired', text: 'expiredText', act: 'sign-in' };
export const notSignedIn = { ...expired, title: 'signedOut', text: 'notSignedIn' };

/**
 * Returns the card of a number. `title`, `text` and `more` are keys of text.js; `sentence` and `note` are sentences of the functions,
 * in the language `language`.
 */
export function cardOf(view) {
  const { failure, trouble, paused, status, code, message, language } = view;
  if (failure) return cardOfFailure(failure);
  if (trouble?.code === 'api_key_not_active') return starting;
  if (trouble || view.stale) return cardOfTrouble(view);
  if (code === 'passkey_required' && !paused) return { kind: 'stuck', title: 'passkey', sentence: message, language };
  if (status === 'connected') {
    const note = code ? { note: message, language } : {};
    return { kind: 'connected', title: 'connected', text: 'connectedText', more: 'wrongPhone', check: true, ...note };
  }
  if (isStuck(view)) return stuck(code);
  if (status === 'disconnected') {
    return { kind: 'disconnected', title: 'disconnected', text: 'disconnectedText', more: 'drop', act: 'link' };
  }
  if (status === 'qr_issued' && code !== 'passkey_required') {
    if (paused) return { kind: 'paused', title: 'paused', text: 'pausedText', more: 'drop', act: 'go-on' };
    const { qrcode: qr, format } = view;
    return { kind: 'scan', title: 'scan', text: 'scanText', more: 'drop', qr, format };
  }
  return paused ? { kind: 'paused', title: 'waiting', text: 'waitingText', more: 'drop', act: 'check' } : starting;
}

const stuck = (code) => ({ kind: 'stuck', title: 'stuck', text: code, more: 'drop', act: 'connect-again' });

/** Returns the card for a temporary problem, with the last known state. */
function cardOfTrouble({ trouble, stale, status, seen_at: seenAt }) {
  const known = status ? { status, seenAt: seenAt ?? null } : null;
  if (trouble?.code === 'offline') return { kind: 'offline', title: 'offline', text: 'offlineText', known, check: true };
  const title = stale || WHATSAPP.test(trouble.code) ? 'outage' : 'down';
  return { kind: 'outage', title, text: 'outageText', known, check: true };
}

/** Returns the card for a request that failed. */
function cardOfFailure(failure) {
  const { code, error, retryable, retryAfterMs, language } = failure;
  if (isSignedOut(failure)) return expired;
  if (isStuck(failure)) return stuck(code);
  if (code === 'offline') return { kind: 'offline', title: 'offline', text: 'offlineText', act: 'retry' };
  const card = { kind: 'error', title: 'error', act: retryable ? 'retry' : 'reload' };
  if (code === 'too_many_numbers') return { ...card, text: 'tooMany', at: Date.now() + retryAfterMs };
  return error ? { ...card, sentence: error, language } : { ...card, text: retryable ? 'unreachable' : 'refused' };
}

/** Returns the key of a number's state in the list. */
export function stateOf(answer) {
  if (!answer) return 'checking';
  if (answer.ok === false) return answer.retryable ? 'unknown' : 'attention';
  if (isStuck(answer) || answer.code === 'passkey_required') return 'attention';
  return answer.status ?? 'unknown';
}
