// When the connect page polls, and how it reads Retry-After. Runs without a browser.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';

import { pauseAfter, retryAfterMs, watch } from '../page/poll.js';

/** The latency of every simulated request. */
const LATENCY_MS = 150;

beforeEach(() => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 0 });
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
});

afterEach(() => {
  mock.timers.reset();
  delete globalThis.document;
});

const later = (answer) => new Promise((resolve) => setTimeout(() => resolve(answer()), LATENCY_MS));

/** Functions whose QR code changes every 20 s. `poll_after_ms` is what they answer for a number that has waited a long time. */
const codes = () => `code ${Math.floor(Date.now() / 20_000)}`;
const waiting = {
  qr: () => later(() => ({ ok: true, qr: codes(), format: 'text', poll_after_ms: 15_000 })),
  status: () => later(() => ({ ok: true, status: 'qr_issued', code: 'qr_not_scanned', qrcode: codes(), format: 'text', poll_after_ms: 15_000 })),
};

/** Advances the clock in steps of 50 ms, and calls `each` after every step. */
async function advance(ms, each = () => {}) {
  for (let gone = 0; gone < ms; gone += 50) {
    mock.timers.tick(50);
    for (let i = 0; i < 20; i += 1) await null;
    each();
  }
}

/** Runs `watch` and collects every view. */
function startWatching(api, known = null) {
  const seen = { views: [], ended: false };
  const stop = new AbortController();
  (async () => {
    for await (const view of watch(api, 'session', known, stop.signal)) seen.views.push(view);
    seen.ended = true;
  })().catch(() => {});
  return { seen, last: () => seen.views.at(-1), stop: () => stop.abort() };
}

test('the page shows an outdated code at most 5% of the time', async () => {
  const { last, stop } = startWatching(waiting);
  await advance(2_000);
  let [dead, all] = [0, 0];
  await advance(125_000, () => {
    all += 1;
    if (last().qrcode !== codes()) dead += 1;
  });
  stop();
  assert(dead / all <= 0.05, `${dead} of ${all}`);
});

test('a code is polled every 2 s, and more often once it is due', async () => {
  const asked = [];
  const api = { ...waiting, qr: () => (asked.push(Date.now()), waiting.qr()) };
  const { stop } = startWatching(api);
  await advance(60_000);
  stop();
  const pauses = asked.slice(1).map((at, index) => at - asked[index]);
  assert(Math.max(...pauses) <= 2_000 + 3 * LATENCY_MS, String(pauses));
  assert(Math.min(...pauses) >= 750, String(pauses));
});

test('a code that was just created is not polled at once', async () => {
  const asked = [];
  const api = { ...waiting, qr: () => (asked.push(Date.now()), waiting.qr()) };
  const { stop } = startWatching(api, { status: 'qr_issued', qrcode: 'code 0', isLive: true, poll_after_ms: 2_000 });
  await advance(5_000);
  stop();
  assert(asked[0] >= 2_000, String(asked));
});

test('a number that waits for a phone is watched for five minutes', async () => {
  const { seen, last } = startWatching(waiting);
  await advance(299_000);
  assert.equal(seen.ended, false);
  await advance(5_000);
  assert.equal(seen.ended, true);
  assert.equal(last().paused, true);
});

test('polling continues through an outage and restarts the limit', async () => {
  let isDown = true;
  const failed = { ok: false, code: 'platform_unavailable', retryable: true, retryAfterMs: 0 };
  const api = {
    qr: () => (isDown ? later(() => failed) : waiting.qr()),
    status: () => (isDown ? later(() => failed) : waiting.status()),
  };
  const { seen, last, stop } = startWatching(api);
  await advance(600_000);
  assert.equal(last().trouble.code, 'platform_unavailable');
  isDown = false;
  await advance(90_000);
  assert.equal(last().status, 'qr_issued');
  assert.equal(last().trouble, null);
  assert.equal(seen.ended, false);
  stop();
});

test('the pause grows with each failure up to a minute', () => {
  const pauses = [1, 2, 3, 4, 5, 6, 7, 50].map((failures) => pauseAfter({ retryAfterMs: 0 }, failures));
  assert.deepEqual(pauses, [2, 4, 8, 16, 32, 60, 60, 60].map((seconds) => seconds * 1000));
  assert.equal(pauseAfter({ retryAfterMs: 7000 }, 1), 7000);
});

test('a permanent error ends polling', async () => {
  const refused = { ok: false, code: 'api_key_rejected', retryable: false };
  const { seen, last } = startWatching({ ...waiting, qr: () => later(() => refused) });
  await advance(1_000);
  assert.equal(seen.ended, true);
  assert.equal(last().failure.code, 'api_key_rejected');
});

test('a Retry-After is obeyed for an hour at most, in either form', () => {
  mock.timers.reset();
  const inSeconds = (seconds) => new Date(Date.now() + 1000 * seconds).toUTCString();
  for (const [header, atLeast, atMost] of [
    [null, 0, 0],
    ['', 0, 0],
    ['0', 0, 0],
    [' 7 ', 7000, 7000],
    ['86400', 3_600_000, 3_600_000],
    ['9'.repeat(400), 3_600_000, 3_600_000],
    ['-5', 0, 0],
    ['soon', 0, 0],
    [inSeconds(-60), 0, 0],
    [inSeconds(60), 55_000, 60_000],
    [inSeconds(86_400), 3_600_000, 3_600_000],
  ]) {
    const ms = retryAfterMs(header);
    assert(ms >= atLeast && ms <= atMost, `${header}: ${ms}`);
  }
});
