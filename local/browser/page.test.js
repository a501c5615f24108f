// The connect page in a real browser, against the whole system: one story in each organisation, told in order.

import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { generate } from 'lean-qr';
import { toPngDataURL } from 'lean-qr/extras/node_export';

import { launch, until, visit } from './browser.js';
import { startStack } from './stack.js';

let stack;
let browser;

before(async () => {
  stack = await startStack();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await stack?.end();
});

/** What a person at a terminal does to the platform. */
async function platform(path, body, method = 'POST') {
  const response = await fetch(`${stack.platform}/_sim/${path}`, { method, body: body && JSON.stringify(body) });
  assert(response.ok, `${path}: ${response.status}`);
  return response.status === 204 ? null : response.json();
}

const shownByPlatform = async (session) => (await platform(`qr?session=${session}`, undefined, 'GET')).qr;
const tokens = async () => (await platform('counts', undefined, 'GET')).token;

/** The screen shows what the platform shows. */
async function showsTheCode(visitor) {
  await visitor.sees('scan');
  const session = await visitor.session();
  await visitor.readsCode(() => shownByPlatform(session));
}

/** Reloads, and waits until the card is of this kind again. */
async function reload(visitor, kind) {
  await visitor.page.reload();
  await visitor.sees(kind);
}
