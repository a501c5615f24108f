// The connect page in a real browser, against the whole system: one story in each organization, told in order.

import assert from 'node:assert/strict';
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

/** The steps of a story: what follows upon one that failed proves nothing. */
function story(t) {
  let failed = false;
  return (name, work) => t.test(name, { skip: failed && 'the story ended before' }, async () => {
    try {
      await work();
    } catch (error) {
      failed = true;
      throw error;
    }
  });
}

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

/** The picture of the README, to be copied to docs when the page has changed: what a person sees who was asked to scan. */
async function picture({ page }) {
  await page.setViewportSize({ width: 1120, height: 720 });
  await page.screenshot({ path: join(import.meta.dirname, '../../target/page/connect-page.png') });
  await page.setViewportSize({ width: 1280, height: 900 });
}

/** Reloads, and waits until the card is of this kind again. */
async function reload(visitor, kind) {
  await visitor.page.reload();
  await visitor.sees(kind);
}

test('a number from the first click to the phone, through every kind of trouble', async (t) => {
  const step = story(t);
  const visitor = await visit(browser, stack.page);

  await step('an organization without a number is asked to connect one', async () => {
    await visitor.sees('nothing');
    await visitor.looksGood('nothing');
    await reload(visitor, 'nothing');
    visitor.wasWell();
  });

  await step('a camera reads from the screen what the platform shows, after a reload too', async () => {
    // By keyboard alone: from the organization and the two languages to the one thing to do.
    for (let i = 0; i < 4; i += 1) await visitor.page.keyboard.press('Tab');
    await visitor.page.keyboard.press('Enter');
    await showsTheCode(visitor);
    await reload(visitor, 'scan');
    await showsTheCode(visitor);
    await picture(visitor);
    await visitor.looksGood('scan');
    visitor.wasWell();
  });

  await step('a code that is replaced is replaced on the screen', async () => {
    const before = await visitor.readCode();
    await platform('advance', { seconds: 21 });
    await until(async () => ![before, undefined].includes(await visitor.readCode()));
    await showsTheCode(visitor);
    visitor.wasWell();
  });

  await step('a code that comes as a picture is shown as it is', async () => {
    const url = toPngDataURL(generate('2@a picture,of a,code,1'), { scale: 4, pad: 4 });
    for (const qr of [url, url.split(',')[1]]) {
      await platform('faults', { endpoint: 'qr', fault: { body: JSON.stringify({ qr }) } });
      await visitor.readsCode(() => '2@a picture,of a,code,1');
      await visitor.click('Normal');
      await showsTheCode(visitor);
    }
    visitor.wasWell();
  });

  await step('a passkey that WhatsApp asks for is said, with what to do', async () => {
    await visitor.click('Ask for a passkey');
    await visitor.sees('stuck');
    await visitor.reads('Open WhatsApp on the phone, confirm the passkey there, then come back here.');
    await visitor.looksGood('stuck');
    await reload(visitor, 'stuck');
    await platform('status', { session: await visitor.session(), status: 'qr_required' });
    await showsTheCode(visitor);
    visitor.wasWell();
  });

  await step('an outage shows what is known, and the code comes back by itself', async () => {
    await visitor.click('Outage');
    await visitor.sees('outage');
    await visitor.reads('Last known: Ready to scan');
    await visitor.looksGood('outage');
    await visitor.page.reload();
    await visitor.sees('outage');
    await platform('faults', undefined, 'DELETE');
    await showsTheCode(visitor);
    visitor.wasWellBut(/^wpp-qr: 50[23]$/);
  });

  await step('nobody notices a token that expires or is revoked', async () => {
    for (const mood of ['Expire the token', 'Revoke the token']) {
      const before = await tokens();
      await visitor.click(mood);
      await until(async () => (await tokens()) === before + 1);
      await showsTheCode(visitor);
    }
    visitor.wasWell();
  });

  await step('a slow platform is waited for', async () => {
    await visitor.click('Slow');
    await reload(visitor, 'scan');
    await visitor.click('Normal');
    await showsTheCode(visitor);
    visitor.wasWell();
  });

  await step('a scan connects the number, which is the primary one and receives messages', async () => {
    await visitor.click('Scan with the simulated phone');
    await visitor.sees('connected');
    await until(async () => /^\d+ Primary Connected .*receives messages$/.test(await visitor.numbers()));
    await reload(visitor, 'connected');
    await visitor.looksGood('connected');
    visitor.wasWell();
  });

  await step('an outage disconnects nobody', async () => {
    await visitor.click('Outage');
    await visitor.sees('outage');
    await visitor.reads('Last known: Connected');
    await visitor.click('Normal');
    await visitor.sees('connected');
    visitor.wasWellBut(/^wpp-qr: 50[23]$/);
  });

  await step('a second number has a code of its own, and leaves the first one primary', async () => {
    const first = await visitor.session();
    await visitor.click('Add a number');
    await showsTheCode(visitor);
    assert.notEqual(await visitor.session(), first);
    await reload(visitor, 'scan');
    await visitor.click('Scan with the simulated phone');
    await visitor.sees('connected');
    await until(async () => {
      const [one, other] = await visitor.numbers();
      return one?.startsWith(`${first} Primary Connected`) && /^\d+ Connected/.test(other);
    });
    await visitor.page.getByRole('button', { name: first }).click();
    await visitor.sees('connected');
    assert.equal(await visitor.session(), first);
    await visitor.looksGood('two-numbers');
    visitor.wasWell();
  });

  await step('a dead key is said, and the number connected again with one click', async () => {
    const session = await visitor.session();
    await visitor.click('Kill the key');
    await visitor.sees('stuck');
    await visitor.reads('WhatsApp no longer gives access to this number.');
    await visitor.looksGood('dead-key');
    visitor.wasWellBut(/^wpp-qr: 409$/);
    await reload(visitor, 'stuck');
    visitor.wasWellBut(/^wpp-(qr|status): 409$/);
    await visitor.click('Connect again');
    await visitor.sees('connected');
    assert.equal(await visitor.session(), session);
    visitor.wasWell();
  });

  await step('a number that was unlinked on the phone is linked again', async () => {
    await visitor.click('Unlink');
    await visitor.sees('disconnected');
    await reload(visitor, 'disconnected');
    await visitor.looksGood('disconnected');
    await visitor.click('Connect this number');
    await showsTheCode(visitor);
    visitor.wasWell();
  });

  await step('a sign-in that has ended is asked for again, and it goes on from there', async () => {
    const session = await visitor.session();
    await visitor.click('Expire the sign-in');
    await visitor.sees('expired');
    await visitor.looksGood('expired');
    await reload(visitor, 'expired');
    visitor.wasWellBut(/^wpp-qr: 401$/, /rest\/v1\/messenger_integrations.*: 401$/);
    await visitor.click('Sign in again');
    await showsTheCode(visitor);
    assert.equal(await visitor.session(), session);
    visitor.wasWell();
  });

  await step('another organization has numbers of its own', async () => {
    await visitor.page.getByLabel('Organization').selectOption('Riverside School');
    await visitor.sees('nothing');
    assert.deepEqual(await visitor.numbers(), []);
    await visitor.page.getByLabel('Organization').selectOption('Lyceum 42');
    await until(async () => (await visitor.numbers()).length === 2);
    visitor.wasWell();
  });

  await visitor.leave();
});

test('who speaks Russian is spoken to in Russian, by the functions too', async () => {
  const visitor = await visit(browser, stack.page, { locale: 'ru-RU' });
  await until(async () => (await visitor.numbers()).every((row) => row.includes('Подключён') || row.includes('Ждёт')));
  await visitor.page.getByRole('heading', { level: 1 }).waitFor();
  assert.equal(await visitor.page.title(), 'Подключить WhatsApp');
  await visitor.click('Сбой');
  await visitor.sees('outage');
  await visitor.reads('Сейчас не удаётся связаться с WhatsApp.');
  await visitor.looksGood('russian');
  await visitor.click('Норма');
  await visitor.page.locator('#card:not([data-kind="outage"])').waitFor();
  await visitor.click('EN, English');
  assert.equal(await visitor.page.title(), 'Connect WhatsApp');
  visitor.wasWellBut(/^wpp-qr: 50[23]$/);
  await visitor.leave();
});

test('what the page asks, and when it stops', async (t) => {
  const step = story(t);
  const visitor = await visit(browser, stack.page, { clock: true });
  const { page } = visitor;

  /** What is asked while so much time goes by. A round trip later, whatever was begun has been seen. */
  const asked = async (seconds) => {
    const before = visitor.calls.length;
    await page.clock.fastForward(seconds * 1000);
    await page.evaluate(() => fetch('/config.json'));
    return visitor.calls.length - before;
  };
  const hide = (hidden) => page.evaluate((hidden) => {
    Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);

  await step('a reload in the middle of a creation makes no second number', async () => {
    await page.getByLabel('Organization').selectOption('Riverside School');
    await visitor.sees('nothing');
    await platform('faults', { endpoint: 'create', fault: { delay: { ms: 2000 } }, times: 1 });
    await visitor.click('Connect WhatsApp');
    await until(() => visitor.calls.some(({ name }) => name === 'wpp-create'));
    await page.reload();
    await visitor.sees('starting');
    await showsTheCode(visitor);
    await until(async () => (await visitor.numbers()).length > 0);
    assert.equal((await visitor.numbers()).length, 1);
    // The first request may be at it still when the second one comes.
    visitor.forgive(/^wpp-create: 503$/);
    visitor.wasWell();
  });

  await step('it asks one question at a time', () => assert.equal(visitor.mostAtOnce, 1));

  await step('it asks nothing while nobody sees it, and goes on when somebody does', async () => {
    await hide(true);
    // What was under way when it was hidden comes to its end.
    await asked(60);
    assert.equal(await asked(60), 0);
    const before = visitor.calls.length;
    await hide(false);
    await until(() => visitor.calls.length > before);
    visitor.wasWell();
  });

  await step('it stops after five minutes, says so, and goes on with a click', async () => {
    await showsTheCode(visitor);
    await asked(300);
    await visitor.sees('paused');
    await visitor.looksGood('paused');
    assert.equal(await asked(3600), 0);
    await visitor.click('Show a new code');
    await showsTheCode(visitor);
    await asked(300);
    await reload(visitor, 'scan');
    visitor.wasWell();
  });

  await step('it stops when the number is connected', async () => {
    await visitor.click('Scan with the simulated phone');
    await until(async () => /Connected/.test(await visitor.numbers()));
    await asked(60);
    assert.equal(await asked(3600), 0);
    visitor.wasWell();
  });

  await visitor.leave();
});

test('a page of an origin that the functions do not know is told that there is no answer', async () => {
  const elsewhere = stack.page.replace('127.0.0.1', 'localhost');
  const visitor = await visit(browser, elsewhere);
  await visitor.sees('error');
  await visitor.looksGood('no-answer');
  await visitor.click('Try again');
  await visitor.sees('error');
  visitor.wasWellBut(/blocked by CORS policy/, /^wpp-status: net::ERR_FAILED$/);
  await visitor.leave();
});
