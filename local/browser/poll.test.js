// What the connect page makes of other people's words, without a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { retryAfterMs } from '../page/poll.js';

test('a Retry-After is obeyed for an hour at most, in either form', () => {
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
