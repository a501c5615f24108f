// The three functions and the list of numbers, as any frontend of a Supabase project calls them.

import { retryAfterMs } from './poll.js';

/**
 * What stands between a call and its answer: one request at a time, in the order of the calls.
 * An answer is `{ok: true, ...}`, or `{ok: false, code, error, retryable, retryAfterMs}`.
 */
export function createApi({ functions, supabase: project, key }, { accessToken, language, onCall }) {
  const { createClient } = window.supabase;
  // The functions are deployed beside the project, at an address of their own.
  const gateway = createClient(functions, key, { accessToken });
  const database = createClient(project, key, { accessToken });

  let turn = Promise.resolve();
  function inTurn(name, signal, work) {
    const call = async () => {
      signal.throwIfAborted();
      const begun = performance.now();
      const answer = await work();
      signal.throwIfAborted();
      onCall({ name, ms: Math.round(performance.now() - begun), code: answer.ok ? null : answer.code });
      return answer;
    };
    const answer = turn.then(call);
    turn = answer.catch(() => {});
    return answer;
  }

  function invoke(name, body, signal) {
    return inTurn(name, signal, async () => {
      const headers = { 'Accept-Language': language() };
      const { data, error } = await gateway.functions.invoke(name, { body, headers, signal });
      return error ? failure(error) : { ok: true, ...data };
    });
  }

  return {
    create: (body, signal) => invoke('wpp-create', body, signal),
    qr: (session, signal) => invoke('wpp-qr', { session }, signal),
    status: (body, signal) => invoke('wpp-status', body, signal),

    /** The organization's numbers, the primary one first. `settings` holds secrets: nobody reads it here. */
    numbers: (signal) => inTurn('numbers', signal, async () => {
      const { data, error, status } = await database
        .from('messenger_integrations')
        .select('id, name, is_primary, created_at')
        .match({ messenger_type: 'whatsapp', provider: 'wpp', is_active: true })
        .order('is_primary', { ascending: false })
        .order('created_at')
        .abortSignal(signal);
      if (!error) return { ok: true, numbers: data };
      return status === 401 ? refused('sign_in_expired', false) : refused('unreachable', true);
    }),
  };
}

const refused = (code, retryable) => ({ ok: false, code, error: null, retryable, retryAfterMs: 0 });

/** supabase-js leaves the answer to an error unread. */
async function failure({ context }) {
  if (!(context instanceof Response)) return refused('unreachable', true);
  const body = await context.json().catch(() => ({}));
  return {
    // A gateway's own refusal says nothing of that; of its 429, the same request passes later.
    ...refused('unreachable', context.status >= 500 || context.status === 429),
    ...body,
    ok: false,
    retryAfterMs: retryAfterMs(context.headers.get('Retry-After')),
  };
}
