// The three functions and the list of numbers, as any frontend of a Supabase project calls them.

import { retryAfterMs } from './poll.js';

/** A call that takes longer is lost, because the functions answer within 30 s. */
const CALL_TIMEOUT_MS = 40_000;

/** How long the page's own address may take to answer. */
const PROBE_TIMEOUT_MS = 5_000;

/**
 * Makes one request at a time, in the order of the calls.
 * An answer is `{ok: true, ...}`, or `{ok: false, code, error, retryable, retryAfterMs, language}`. The page adds two codes:
 * `offline` if the browser has no network, `unreachable` if the service cannot be reached.
 */
export function createApi({ functions, supabase: project, key }, { accessToken, language, onCall }) {
  const { createClient } = window.supabase;
  // The functions are deployed apart from the project, at a separate address.
  const gateway = createClient(functions, key, { accessToken });
  const database = createClient(project, key, { accessToken });

  let turn = Promise.resolve();
  function inTurn(name, signal, work) {
    const call = async () => {
      signal.throwIfAborted();
      const begun = performance.now();
      const current = language();
      const reply = await within(CALL_TIMEOUT_MS, signal, work);
      signal.throwIfAborted();
      const answer = { ...(reply ?? (await noAnswer(signal))), language: current };
      signal.throwIfAborted();
      onCall({ name, ms: Math.round(performance.now() - begun), code: answer.ok ? null : answer.code });
      return answer;
    };
    const answer = turn.then(call);
    turn = answer.catch(() => {});
    return answer;
  }

  const invoke = (name, body, signal) => inTurn(name, signal, async (signal) => {
    const headers = { 'Accept-Language': language() };
    const { data, error } = await gateway.functions.invoke(name, { body, headers, signal });
    if (error) return failure(error.context);
    return data?.success === true ? { ...data, ok: true } : refused('unreachable', true);
  });

  return {
    create: (body, signal) => invoke('wpp-create', body, signal),
    qr: (session, signal) => invoke('wpp-qr', { session }, signal),
    status: (body, signal) => invoke('wpp-status', body, signal),

    /** The organization's numbers, the primary one first. `settings` holds secrets, which no page may read. */
    numbers: (signal) => inTurn('numbers', signal, async (signal) => {
      const { data, error, status } = await database
        .from('messenger_integrations')
        .select('id, name, is_primary, created_at')
        .match({ messenger_type: 'whatsapp', provider: 'wpp', is_active: true })
        .order('is_primary', { ascending: false })
        .order('created_at')
        // The page shows the error, and retries.
        .retry(false)
        .abortSignal(signal);
      if (!error) return { ok: true, numbers: data };
      if (status === 401) return refused('sign_in_expired', false);
      return status ? refused('unreachable', true) : null;
    }),
  };
}

const refused = (code, retryable) => ({ ok: false, code, error: null, retryable, retryAfterMs: 0 });

/** Reads the answer of an error, which supabase-js leaves unread; `null` if there is none. */
async function failure(response) {
  if (!(response instanceof Response)) return null;
  const body = await response.json().catch(() => ({}));
  return {
    // A gateway's own refusal does not say whether the same request can succeed later.
    ...refused('unreachable', response.status >= 500 || response.status === 429),
    ...body,
    ok: false,
    retryAfterMs: retryAfterMs(response.headers.get('Retry-After')),
  };
}

/** Finds out why there is no answer, by a request to the page's own address. */
async function noAnswer(signal) {
  const probe = (signal) => fetch('/icon.svg', { method: 'HEAD', cache: 'no-store', signal });
  const isOnline = navigator.onLine && (await within(PROBE_TIMEOUT_MS, signal, probe).then(() => true, () => false));
  return refused(isOnline ? 'unreachable' : 'offline', true);
}

/** Does the work until the timeout or the signal ends it. */
async function within(ms, signal, work) {
  const both = new AbortController();
  const abort = () => both.abort(signal.reason);
  signal.addEventListener('abort', abort);
  const timer = setTimeout(abort, ms);
  try {
    return await work(both.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}
