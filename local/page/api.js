// The three functions and the list of numbers, as any frontend of a Supabase project calls them.

import { retryAfterMs } from './poll.js';

/** The functions answer within 30 s, so a call that takes longer is treated as lost. */
const CALL_TIMEOUT_MS = 40_000;

/** Timeout of the request that tells `offline` from `unreachable`. */
const PROBE_TIMEOUT_MS = 5_000;

/**
 * Returns the calls. They run one at a time, in the order in which they were made.
 * An answer is `{ok: true, ...}`, or `{ok: false, code, error, retryable, retryAfterMs, language}`. The page adds two codes:
 * `offline` if the browser has no network, `unreachable` if there is no usable answer.
 */
export function createApi(config, { accessToken, language, onCall }) {
  const { functions: functionsUrl, supabase: projectUrl, key: publishableKey } = config;
  const { createClient } = window.supabase;
  // The functions are deployed apart from the project, at a separate address.
  const gateway = createClient(functionsUrl, publishableKey, { accessToken });
  const database = createClient(projectUrl, publishableKey, { accessToken });

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
    if (error) return readFailure(error.context);
    return data?.success === true ? { ...data, ok: true } : failed('unreachable', true);
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
      if (status === 401) return failed('sign_in_expired', false);
      return status ? failed('unreachable', true) : null;
    }),
  };
}

const failed = (code, retryable) => ({ ok: false, code, error: null, retryable, retryAfterMs: 0 });

/** Reads the body of an error response, which supabase-js does not read. Returns `null` if there was no response. */
async function readFailure(response) {
  if (!(response instanceof Response)) return null;
  const body = await response.json().catch(() => ({}));
  return {
    // A gateway's own refusal does not say whether the same request can succeed later.
    ...failed('unreachable', response.status >= 500 || response.status === 429),
    ...body,
    ok: false,
    retryAfterMs: retryAfterMs(response.headers.get('Retry-After')),
  };
}

/** Finds out why there is no answer, by a request to the page's own address. */
async function noAnswer(signal) {
  const probe = (signal) => fetch('/icon.svg', { method: 'HEAD', cache: 'no-store', signal });
  const isOnline = navigator.onLine && (await within(PROBE_TIMEOUT_MS, signal, probe).then(() => true, () => false));
  return failed(isOnline ? 'unreachable' : 'offline', true);
}

/** Runs `work`, and aborts it after `ms` or when `signal` aborts. */
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
