// The panel of the simulated phone, platform and product. A product has none of this.

import { text } from './text.js';
import { fill } from './view.js';

const GROUPS = {
  phone: ['scan', 'unlink', 'passkey'],
  whatsapp: ['normal', 'slow', 'outage'],
  access: ['expire', 'revoke', 'dead', 'sign-out', 'remove'],
};

/** What these are about is the number on the card. */
const OF_A_NUMBER = new Set(['scan', 'unlink', 'passkey', 'expire', 'revoke', 'dead', 'remove']);

/** Every call of WhatsApp misbehaves in this way. */
const everything = (fault) => JSON.stringify({ endpoint: '*', fault });

const JSON_HEADERS = { 'Content-Type': 'application/json' };

/** Builds the panel. `session` gives the number on the card, `expireSignIn` ends the user's sign-in, `changed` looks again. */
export function createSimulator({ platform }, { session, expireSignIn, changed }) {
  const panel = document.getElementById('moods');
  const done = document.getElementById('done');

  const named = (more = {}) => JSON.stringify({ session: session(), ...more });
  const sent = (url, options) => fetch(url, { method: 'POST', ...options }).then(({ ok }) => ok, () => false);
  const tell = (path, body, method = 'POST') => sent(`${platform}/_sim/${path}`, { method, body });
  const change = (path) => sent(`/${path}`, { headers: JSON_HEADERS, body: named() });

  const moods = {
    scan: () => tell('scan', named()),
    unlink: () => tell('status', named({ status: 'offline' })),
    passkey: () => tell('status', named({ status: 'passkey_required' })),
    normal: () => tell('faults', undefined, 'DELETE'),
    slow: () => tell('faults', everything({ delay: { ms: 2000 } })),
    outage: () => tell('faults', everything({ status: { status: 503 } })),
    expire: () => change('expire-token'),
    // A key or a token that is refused in its first minute counts as one that is not active yet.
    revoke: async () => (await change('age')) && tell('forget-tokens'),
    dead: async () => (await change('age')) && tell('revoke-key', named()),
    'sign-out': expireSignIn,
    remove: () => change('remove'),
  };

  async function play(mood) {
    const went = await moods[mood]();
    done.textContent = went ? text(`mood.${mood}`)[1] : text('impossible');
    if (went) changed();
  }

  panel.addEventListener('click', ({ target }) => {
    const button = target.closest('button');
    if (button && button.getAttribute('aria-disabled') !== 'true') play(button.dataset.mood);
  });

  for (const [group, names] of Object.entries(GROUPS)) {
    const set = document.createElement('fieldset');
    set.dataset.group = group;
    set.append(document.createElement('legend'));
    for (const mood of names) {
      const button = Object.assign(document.createElement('button'), { type: 'button' });
      button.dataset.mood = mood;
      set.append(button);
    }
    panel.append(set);
  }

  return {
    /** Fills the words in, and offers what can be done now: without a code there is nothing to scan. */
    show(hasCode) {
      for (const set of panel.children) fill(set.firstElementChild, text(set.dataset.group));
      for (const button of panel.querySelectorAll('[data-mood]')) {
        const { mood } = button.dataset;
        fill(button, text(`mood.${mood}`)[0]);
        const isOff = mood === 'scan' ? !hasCode : OF_A_NUMBER.has(mood) && !session();
        button.setAttribute('aria-disabled', String(isOff));
      }
    },
  };
}
