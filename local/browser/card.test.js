// What the connect page shows for each answer. Runs without a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { cardOf, stateOf } from '../page/card.js';
import { TEXTS } from '../page/text.js';

const failure = (code, fields = {}) => ({ failure: { ok: false, code, error: 'a sentence', retryable: false, retryAfterMs: 0, ...fields } });
const trouble = (code) => ({ trouble: { code, retryable: true } });

for (const [name, view, expected] of [
  ['a connected number', { status: 'connected' }, { kind: 'connected', more: 'wrongPhone', check: true }],
  ['messages that do not arrive', { status: 'connected', code: 'webhook_pending', message: 'm' }, { kind: 'connected', note: 'm' }],
  ['a code', { status: 'qr_issued', qrcode: 'q', format: 'text' }, { kind: 'scan', qr: 'q', more: 'drop' }],
  ['a code that has waited for a long time', { status: 'qr_issued', qrcode: 'q', code: 'qr_not_scanned' }, { kind: 'scan', note: undefined }],
  ['a passkey', { status: 'qr_issued', code: 'passkey_required', message: 'm' }, { kind: 'stuck', title: 'passkey', sentence: 'm' }],
  ['a start that is stuck', { status: 'qr_pending', code: 'start_stuck' }, { kind: 'stuck', act: 'connect-again' }],
  ['a lost session', { status: 'disconnected', code: 'session_lost' }, { kind: 'stuck', act: 'connect-again' }],
  ['a disconnected number', { status: 'disconnected' }, { kind: 'disconnected', act: 'link', more: 'drop' }],
  ['a creation that starts', { status: 'starting' }, { kind: 'starting' }],
  ['a code that was not scanned', { status: 'qr_issued', qrcode: 'q', paused: true }, { title: 'paused', act: 'go-on', qr: undefined }],
  ['a passkey that was not given', { status: 'qr_issued', code: 'passkey_required', paused: true }, { title: 'waiting' }],
  ['a start that never ends', { status: 'qr_pending', paused: true }, { title: 'waiting', act: 'check' }],
  ['WhatsApp down', { status: 'connected', seen_at: '2026-01-01T00:00:00Z', ...trouble('platform_timeout') }, { kind: 'outage', title: 'outage', check: true }],
  ['an old state', { status: 'connected', stale: true }, { kind: 'outage', title: 'outage' }],
  ['our database down', trouble('database_unavailable'), { kind: 'outage', title: 'down' }],
  ['our service unreachable', trouble('unreachable'), { kind: 'outage', title: 'down' }],
  ['the browser offline', trouble('offline'), { kind: 'offline' }],
  ['an API key that is not active yet', trouble('api_key_not_active'), { kind: 'starting' }],
  ['a sign-in that has expired', failure('sign_in_expired'), { kind: 'expired', act: 'sign-in' }],
  ['a signing key that is not known yet', failure('unauthorized', { retryable: true }), { kind: 'error', act: 'retry' }],
  ['a rejected API key', failure('api_key_rejected'), { kind: 'stuck', text: 'api_key_rejected', act: 'connect-again' }],
  ['settings that cannot be read', failure('settings_unreadable'), { kind: 'error', sentence: 'a sentence', act: 'reload', more: undefined }],
  ['a refusal of the platform', failure('platform_refused'), { kind: 'error', sentence: 'a sentence', act: 'reload' }],
  ['too many numbers', failure('too_many_numbers', { retryable: true, retryAfterMs: 60_000 }), { text: 'tooMany', sentence: undefined, act: 'retry' }],
  ['a creation without a network', failure('offline', { retryable: true }), { kind: 'offline', act: 'retry' }],
  ['a gateway’s refusal', failure('unreachable', { error: null }), { text: 'refused', act: 'reload' }],
  ['a gateway’s outage', failure('unreachable', { error: null, retryable: true }), { text: 'unreachable', act: 'retry' }],
]) {
  test(`the card of ${name}`, () => {
    const card = cardOf(view);
    for (const [field, value] of Object.entries(expected)) assert.equal(card[field], value, `${field} of ${JSON.stringify(card)}`);
    for (const key of [card.title, card.text, card.more, card.act].filter(Boolean)) {
      for (const words of Object.values(TEXTS)) assert.equal(typeof words[key], 'string', key);
    }
  });
}

test('the list shows what is known about each number', () => {
  const states = [undefined, { ok: true, status: 'connected' }, { ok: true, status: 'qr_issued', code: 'passkey_required' },
    { ok: false, retryable: true }, { ok: false, retryable: false }, { ok: true }].map(stateOf);
  assert.deepEqual(states, ['checking', 'connected', 'attention', 'unknown', 'attention', 'unknown']);
});

test('each language has every text with the same placeholders', () => {
  const shape = (texts) => Object.entries(texts).map(([key, words]) =>
    [key, typeof words === 'string' ? words.match(/\{\w+\}/g)?.sort() : Object.keys(words).map((action) => [action, words[action].length])]);
  assert.deepEqual(shape(TEXTS.ru), shape(TEXTS.en));
});
