// The panel of the simulated phone and platform. A product has none of this.

import { text } from './text.js';

const GROUPS = {
  phone: ['scan', 'unlink', 'passkey'],
  whatsapp: ['normal', 'slow', 'outage'],
  access: ['expire', 'revoke', 'dead', 'sign-out'],
};

/** What these are about is the number on the card. */
const OF_A_NUMBER = new Set(['scan', 'unlink', 'passkey', 'expire', 'revoke', 'dead']);

/** Every call of WhatsApp misbehaves in this way. */
const everything = (fault) => JSON.stringify({ endpoint: '*', fault });

const json = { method: 'POST', headers: { 'Content-Type': 'application/json' } };

/** Builds the panel. `session` gives the number on the card, `expireSignIn` ends the own sign-in, `changed` looks again. */
export function createSimulator({ platform }, { session, expireSignIn, changed }) {
  const panel = document.getElementById('moods');
  const done = document.getElementById('done');

  const tell = async (path, body = '', method = 'POST') =>
    (await fetch(`${platform}/_sim/${path}`, { method, body: body || undefined })).ok;
  const named = (more = {}) => JSON.stringify({ session: session(), ...more });

  const age = async (path) => (await fetch(`/${path}`, { ...json, body: named() })).ok;

  const moods = {
    scan: () => tell('scan', named()),
    unlink: () => tell('status', named({ status: 'offline' })),
    passkey: () => tell('status', named({ status: 'passkey_required' })),
    normal: () => tell('faults', '', 'DELETE'),
    slow: () => tell('faults', everything({ delay: { ms: 2000 } })),
    outage: () => tell('faults', everything({ status: { status: 503 } })),
    expire: () => age('expire-token'),
    revoke: async () => (await age('age-token')) && tell('forget-tokens'),
    // What is refused in its first minute counts as not active yet.
    dead: async () => (await age('age-key')) && (await age('age-token')) && tell('revoke-key', named()),
    'sign-out': async () => (await expireSignIn(), true),
  };

  async function play(mood) {
    const went = await moods[mood]();
    done.textContent = went ? text(`mood.${mood}`)[1] : text('refused');
    if (went) changed();
  }

  for (const [group, names] of Object.entries(GROUPS)) {
    const set = document.createElement('fieldset');
    set.append(Object.assign(document.createElement('legend')));
    for (const mood of names) {
      const button = Object.assign(document.createElement('button'), { type: 'button', onclick: () => play(mood) });
      button.dataset.mood = mood;
      set.append(button);
    }
    set.dataset.group = group;
    panel.append(set);
  }

  return {
    /** Fills the words in, and offers what can be done now: without a code there is nothing to scan. */
    show(hasCode) {
      for (const set of panel.children) set.firstElementChild.textContent = text(set.dataset.group);
      for (const button of panel.querySelectorAll('[data-mood]')) {
        button.textContent = text(`mood.${button.dataset.mood}`)[0];
        const { mood } = button.dataset;
        button.disabled = mood === 'scan' ? !hasCode : OF_A_NUMBER.has(mood) && !session();
      }
    },
  };
}
