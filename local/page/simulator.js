// The panel that controls the simulated phone, platform and product. A real product has nothing like it.

import { text } from './text.js';
import { fill } from './view.js';

const GROUPS = {
  phone: ['scan', 'unlink', 'passkey'],
  whatsapp: ['normal', 'slow', 'outage'],
  access: ['expire', 'revoke', 'dead', 'sign-out', 'remove'],
};

/** The actions on the number on the card. */
const OF_A_NUMBER = new Set(['scan', 'unlink', 'passkey', 'expire', 'revoke', 'dead', 'remove']);

/** Applies this fault to every call of the platform. */
const everything = (fault) => JSON.stringify({ endpoint: '*', fault });

const JSON_HEADERS = { 'Content-Type': 'application/json' };

/** Builds the panel. `session` returns the number on the card, `expireSignIn` expires the sign-in, `changed` refreshes the page. */
export function createSimulator({ platform }, { session, expireSignIn, changed }) {
  const panel = document.getElementById('simulator-actions');
  const done = document.getElementById('done');

  const named = (more = {}) => JSON.stringify({ session: session(), ...more });
  const sent = (url, options) => fetch(url, { method: 'POST', ...options }).then(({ ok }) => ok, () => false);
  const tell = (path, body, method = 'POST') => sent(`${platform}/_sim/${path}`, { method, body });
  const change = (path) => sent(`/${path}`, { headers: JSON_HEADERS, body: named() });

  const actions = {
    scan: () => tell('scan', named()),
    unlink: () => tell('status', named({ status: 'offline' })),
    passkey: () => tell('status', named({ status: 'passkey_required' })),
    normal: () => tell('faults', undefined, 'DELETE'),
    slow: () => tell('faults', everything({ delay: { ms: 2000 } })),
    outage: () => tell('faults', everything({ status: { status: 503 } })),
    expire: () => change('expire-token'),
    // A key or token that is refused in its first minute counts as not active yet.
    revoke: async () => (await change('age')) && tell('forget-tokens'),
    dead: async () => (await change('age')) && tell('revoke-key', named()),
    'sign-out': expireSignIn,
    remove: () => change('remove'),
  };

  async function play(action) {
    const went = await actions[action]();
    done.textContent = went ? text(`actions.${action}`)[1] : text('impossible');
    if (went) changed();
  }

  panel.addEventListener('click', ({ target }) => {
    const button = target.closest('button');
    if (button && button.getAttribute('aria-disabled') !== 'true') play(button.dataset.action);
  });

  for (const [group, names] of Object.entries(GROUPS)) {
    const set = document.createElement('fieldset');
    set.dataset.group = group;
    set.append(document.createElement('legend'));
    for (const action of names) {
      const button = Object.assign(document.createElement('button'), { type: 'button' });
      button.dataset.action = action;
      set.append(button);
    }
    panel.append(set);
  }

  return {
    /** Fills in the texts, and enables the actions that are possible now: without a code there is nothing to scan. */
    show(hasCode) {
      for (const set of panel.children) fill(set.firstElementChild, text(set.dataset.group));
      for (const button of panel.querySelectorAll('[data-action]')) {
        const { action } = button.dataset;
        fill(button, text(`actions.${action}`)[0]);
        const isOff = action === 'scan' ? !hasCode : OF_A_NUMBER.has(action) && !session();
        button.setAttribute('aria-disabled', String(isOff));
      }
    },
  };
}
