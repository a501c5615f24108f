// When the connect page asks, and what it makes of other people's words, without a browser.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';

import { pauseAfter, retryAfterMs, watch } from '../page/poll.js';

/** What a request takes. */
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

/** A platform whose codes turn every 20 s; `poll_after_ms` is what it says to a number that has waited for long. */
const codes = () => `code ${Math.floor(Date.now() / 20_000)}`;
const waiting = {
  qr: () => later(() => ({ ok: true, qr: codes(), format: 'text', poll_after_ms: 15_000 })),
  status: () => later(() => ({ ok: true, status: 'qr_issued', code: 'qr_not_scanned', qrcode: codes(), format: 'text', poll_after_ms: 15_000 })),
};

/** Lets time go by in small steps; `each` is called after each. */
async function passes(ms, each = () => {}) {
  for (let gone = 0; gone < ms; gone += 50) {
    mock.timers.tick(50);
    for (let i = 0; i < 20; i += 1) await null;
    each();
  }
}

/** Watches, and keeps the last view. */
function watched(api, known = null) {
  const seen = { views: [], ended: false };
  const stop = new AbortController();
  (async () => {
    for await (const view of watch(api, 'session', known, stop.signal)) seen.views.push(view);
    seen.ended = true;
  })().catch(() => {});
  return { seen, last: () => seen.views.at(-1), stop: () => stop.abort() };
}

test('a code is dead for at most 5 % of the time', async () => {
  const { last, stop } = watched(waiting);
  await passes(2_000);
  let [dead, all] = [0, 0];
  await passes(125_000, () => {
    all += 1;
    if (last().qrcode !== codes()) dead += 1;
  });
  stop();
  assert(dead / all <= 0.05, `${dead} of ${all}`);
});

test('a code is asked for every 2 s, and more often once it is due', async () => {
  const asked = [];
  const api = { ...waiting, qr: () => (asked.push(Date.now()), waiting.qr()) };
  const { stop } = watched(api);
  await passes(60_000);
  stop();
  const pauses = asked.slice(1).map((at, index) => at - asked[index]);
  assert(Math.max(...pauses) <= 2_000 + 3 * LATENCY_MS, String(pauses));
  assert(Math.min(...pauses) >= 750, String(pauses));
});

test('a code that was just created is not asked for at once', async () => {
  const asked = [];
  const api = { ...waiting, qr: () => (asked.push(Date.now()), waiting.qr()) };
  const { stop } = watched(api, { status: 'qr_issued', qrcode: 'code 0', isLive: true, poll_after_ms: 2_000 });
  await passes(5_000);
  stop();
  assert(asked[0] >= 2_000, String(asked));
});

test('a number that waits for a phone is watched for five minutes', async () => {
  const { seen, last } = watched(waiting);
  await passes(299_000);
  assert.equal(seen.ended, false);
  await passes(5_000);
  assert.equal(seen.ended, true);
  assert.equal(last().paused, true);
});

test('an outage is watched to its end, and the five minutes begin anew', async () => {
  let isDown = true;
  const failed = { ok: false, code: 'platform_unavailable', retryable: true, retryAfterMs: 0 };
  const api = {
    qr: () => (isDown ? later(() => failed) : waiting.qr()),
    status: () => (isDown ? later(() => failed) : waiting.status()),
  };
  const { seen, last, stop } = watched(api);
  await passes(600_000);
  assert.equal(last().trouble.code, 'platform_unavailable');
  isDown = false;
  await passes(90_000);
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

test('a lasting error ends the watch', async () => {
  const refused = { ok: false, code: 'api_key_rejected', retryable: false };
  const { seen, last } = watched({ ...waiting, qr: () => later(() => refused) });
  await passes(1_000);
  assert.equal(seen.ended, true);
  assert.equal(last().failure.code, 'api_key_rejected');
});

test('a Retry-After is obeyed for an hour at most, in either form', () => {
  mock.timers.reset();
  const inSeconds = (seconds) => new Date(Date.now() + 1000 * seconds).toUTCString();
  for (const [said, atLeast, atMost] of [
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
    const ms = retryAfterMs(said);
    assert(ms >= atLeast && ms <= atMost, `${said}: ${ms}`);
  }
});
