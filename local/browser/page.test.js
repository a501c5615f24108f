// The connect page in a real browser, against the whole system: one story for each language and organization, step by step.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { generate } from 'lean-qr';
import { toPngDataURL } from 'lean-qr/extras/node_export';

import { TEXTS } from '../page/text.js';
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

/** The steps of a story. After a failed step, the others are skipped, because they would prove nothing. */
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

/** The screen shows what the platform shows. */
async function showsTheCode(visitor) {
  await visitor.sees('scan');
  const session = await visitor.session();
  await visitor.readsCode(() => stack.codeOf(session));
}

/** The README's screenshot. Copy it to docs when the page has changed. */
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

/** Does what happens when a person leaves the page and comes back. */
async function hide({ page }, hidden) {
  await page.evaluate((hidden) => {
    Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
}

const ORGANIZATIONS = { en: 'Lyceum 42', ru: 'Riverside School' };

/** The exact texts that a person must see in each language. */
const EXPECTED = {
  en: {
    title: 'Connect WhatsApp',
    passkey: 'Open WhatsApp on the phone, confirm the passkey there, then come back here.',
    ready: /^Last known( at [^:]+:\d\d)?: ready to scan$/,
    connected: /^Last known( at [^:]+:\d\d)?: connected$/,
    wrongPhone: 'Wrong phone? On that phone, open WhatsApp, go to Linked devices and log out.',
    samePhone: 'Are you viewing this page on that phone? Open it on a computer or another phone.',
    dead: 'WhatsApp no longer allows access to this number. Connect it again; have its phone at hand.',
    offline: 'You are offline',
    down: 'Our service is not responding',
    drop: 'Don’t need this number? Delete it in the settings, in the list of numbers.',
    failed: /WhatsApp/,
    steps: ['Open WhatsApp on the phone.', /Android.*iPhone/, 'Tap Link a device and point the phone at this code.'],
    away: /put the phone away.*online from time to time/,
    renews: 'The code refreshes automatically.',
    broken: 'Something went wrong on this page',
  },
  ru: {
    title: 'Подключить WhatsApp',
    passkey: /ключ доступа и вернитесь сюда/,
    ready: /^По последним данным( \(\d\d:\d\d\))?: ждёт сканирования$/,
    connected: /^По последним данным( \(\d\d:\d\d\))?: подключён$/,
    wrongPhone: /^Не тот телефон\?/,
    samePhone: /^Эта страница открыта на том же телефоне\?/,
    dead: 'WhatsApp закрыл доступ к этому номеру. Подключите его заново: понадобится телефон.',
    offline: 'Нет интернета',
    down: 'Наш сервис не отвечает',
    drop: 'Номер не нужен? Удалите его в настройках, в списке номеров.',
    failed: /WhatsApp/,
    steps: ['Откройте WhatsApp на телефоне.', /Android.*iPhone/, /^Нажмите «Привязка устройства»/],
    away: /Телефон можно убрать.*раз в две недели/,
    renews: 'Код обновляется сам.',
    broken: 'На этой странице что-то сломалось',
  },
};

for (const language of ['en', 'ru']) {
  test(`a number from the first click to the phone, with every kind of failure (${language})`, async (t) => {
    const step = story(t);
    const [words, expected] = [TEXTS[language], EXPECTED[language]];
    const visitor = await visit(browser, stack.page, { language });
    const { page } = visitor;
    const action = (name) => visitor.click(words.actions[name][0]);
    const looksGood = (name) => visitor.looksGood(`${language}-${name}`);
    const rows = async (count) => until(async () => (await visitor.numbers()).length === count);

    await step('an organization without a number is asked to connect one', async () => {
      if (language === 'ru') {
        // The other organization's story no longer takes screenshots.
        await page.getByLabel(words.organization).selectOption(ORGANIZATIONS[language]);
      }
      await visitor.sees('nothing');
      assert.equal(await page.title(), expected.title);
      await looksGood('nothing');
      if (language === 'en') await reload(visitor, 'nothing');
      visitor.wasWell();
    });

    await step('the code on the screen is the platform’s', async () => {
      // With the keyboard only: from the organization to the two languages and the one button.
      await page.getByLabel(words.organization).focus();
      for (let i = 0; i < 3; i += 1) await page.keyboard.press('Tab');
      await page.keyboard.press('Enter');
      await showsTheCode(visitor);
      await reload(visitor, 'scan');
      await showsTheCode(visitor);
      if (language === 'en') await picture(visitor);
      await looksGood('scan');
      visitor.wasWell();
    });

    await step('the card explains scanning and deleting', async () => {
      for (const words of [...expected.steps, expected.renews, expected.drop]) await visitor.reads(words);
      assert.equal(await page.getByText(expected.samePhone).isVisible(), false);
      await page.setViewportSize({ width: 499, height: 900 });
      assert(await page.getByText(expected.samePhone).isVisible());
      await page.setViewportSize({ width: 1280, height: 900 });
      await visitor.reads(/^WhatsApp \(WPP\) · …\d{4}$/);
    });

    await step('a replaced code is replaced on the screen', async () => {
      const before = await visitor.readCode();
      await stack.platform('advance', { seconds: 21 });
      await until(async () => ![before, undefined].includes(await visitor.readCode()));
      await showsTheCode(visitor);
      visitor.wasWell();
    });

    await step('a code sent as an image is shown unchanged', async () => {
      const url = toPngDataURL(generate('2@a picture,of a,code,1'), { scale: 4, pad: 4 });
      for (const qr of [url, url.split(',')[1]]) {
        await stack.platform('faults', { endpoint: 'qr', fault: { body: JSON.stringify({ qr }) } });
        await visitor.readsCode(() => '2@a picture,of a,code,1');
        await action('normal');
        await showsTheCode(visitor);
      }
      visitor.wasWell();
    });

    await step('a requested passkey is explained', async () => {
      await action('passkey');
      await visitor.sees('stuck');
      await visitor.reads(expected.passkey);
      await looksGood('passkey');
      await reload(visitor, 'stuck');
      await stack.platform('status', { session: await visitor.session(), status: 'qr_required' });
      await showsTheCode(visitor);
      visitor.wasWell();
    });

    await step('an outage shows the last known state until the code is back', async () => {
      await action('outage');
      await visitor.sees('outage');
      await visitor.reads(expected.ready);
      await looksGood('outage');
      await page.reload();
      await visitor.sees('outage');
      await stack.platform('faults', undefined, 'DELETE');
      await showsTheCode(visitor);
      visitor.wasWellBut(/^wpp-qr: 50[23]$/);
    });

    await step('an expired or revoked token is not noticed', async () => {
      const tokens = async () => (await stack.platform('counts', undefined, 'GET')).token;
      for (const name of ['expire', 'revoke']) {
        const before = await tokens();
        await action(name);
        await until(async () => (await tokens()) === before + 1);
        await showsTheCode(visitor);
      }
      visitor.wasWell();
    });

    await step('the page waits for a slow platform', async () => {
      await action('slow');
      await reload(visitor, 'scan');
      await action('normal');
      await showsTheCode(visitor);
      visitor.wasWell();
    });

    await step('a scan connects the number, which becomes the primary one', async () => {
      await action('scan');
      await visitor.sees('connected');
      const row = new RegExp(`^WhatsApp \\(WPP\\) ${words.primary} ${words['state-connected']} \\d+ .*${words.registered}$`);
      await until(async () => row.test(await visitor.numbers()));
      for (const words of [expected.wrongPhone, expected.away]) await visitor.reads(words);
      await reload(visitor, 'connected');
      await looksGood('connected');
      visitor.wasWell();
    });

    await step('an outage disconnects no number', async () => {
      await action('outage');
      await visitor.sees('outage');
      await visitor.reads(expected.connected);
      await action('normal');
      await visitor.sees('connected');
      visitor.wasWellBut(/^wpp-qr: 50[23]$/);
    });

    await step('an unlinked phone is noticed within 5 s of a return to the page', async () => {
      const session = await visitor.session();
      const comesBack = { focus: () => visitor.looksAgain(), tab: () => hide(visitor, false) };
      for (const way of ['focus', 'tab']) {
        if (way === 'tab') await hide(visitor, true);
        await stack.platform('status', { session, status: 'offline' });
        await page.waitForTimeout(1000);
        assert.equal(await visitor.kind(), 'connected');
        await comesBack[way]();
        await page.locator('#card[data-kind="disconnected"]').waitFor({ timeout: 5000 });
        await stack.platform('status', { session, status: 'connected' });
        await page.waitForTimeout(500);
        await visitor.looksAgain();
        await visitor.sees('connected');
      }
      visitor.wasWell();
    });

    await step('an offline browser is told apart from an unreachable service', async () => {
      await visitor.context.setOffline(true);
      await visitor.sees('offline');
      await visitor.reads(expected.offline);
      await visitor.reads(expected.connected);
      await looksGood('offline');
      await visitor.context.setOffline(false);
      await page.locator('#card[data-kind="connected"]').waitFor({ timeout: 2000 });
      await page.route('**/functions/v1/*', (route) => route.abort());
      await visitor.looksAgain();
      await visitor.reads(expected.down);
      await page.unroute('**/functions/v1/*');
      await visitor.click(words.check);
      await visitor.sees('connected');
      visitor.forgive(/ERR_(FAILED|INTERNET_DISCONNECTED)/);
      visitor.wasWell();
    });

    await step('two quick clicks add one number, and a later click adds another', async () => {
      const first = await visitor.session();
      await stack.platform('faults', { endpoint: 'create', fault: { delay: { ms: 1000 } }, times: 1 });
      const before = visitor.count('wpp-create');
      await page.setViewportSize({ width: 360, height: 740 });
      const add = page.locator('#add');
      await add.evaluate((button) => [1, 2].forEach(() => button.click()));
      assert.equal(await add.getAttribute('aria-disabled'), 'true');
      assert.equal(await add.innerText(), words.adding);
      // The card has the focus, and is in view.
      assert.equal(await page.evaluate(() => document.activeElement.id), 'title');
      assert((await page.locator('#title').boundingBox()).y >= 0);
      await visitor.sees('scan');
      await rows(2);
      const second = await visitor.session();
      assert.notEqual(second, first);
      await visitor.click(words.add);
      await until(() => visitor.count('wpp-create') === before + 2);
      await showsTheCode(visitor);
      assert.equal(await visitor.session(), second);
      assert.equal((await visitor.numbers()).length, 2);
      await page.setViewportSize({ width: 1280, height: 900 });
      visitor.wasWell();
    });

    await step('a deleted number leaves the page', async () => {
      await action('remove');
      await rows(1);
      await visitor.sees('connected');
      // A colleague deletes the number while the code is on the screen.
      await visitor.click(words.add);
      await showsTheCode(visitor);
      await rows(2);
      await stack.change('remove', await visitor.session());
      await visitor.sees('connected');
      await rows(1);
      visitor.wasWellBut(/^wpp-qr: 404$/);
    });

    await step('a second number has its own code, and the first stays primary', async () => {
      const first = await visitor.session();
      await visitor.click(words.add);
      await showsTheCode(visitor);
      await reload(visitor, 'scan');
      await action('scan');
      await visitor.sees('connected');
      await until(async () => {
        const [one, other] = await visitor.numbers();
        return one?.includes(`${words.primary} ${words['state-connected']} ${first}`) && other?.includes(` ${words['state-connected']} `);
      });
      await page.getByRole('button', { name: first }).click();
      await visitor.sees('connected');
      assert.equal(await visitor.session(), first);
      assert.equal(await page.evaluate(() => document.activeElement.id), 'title');
      await looksGood('two-numbers');
      visitor.wasWell();
    });

    await step('a check never creates a number', async () => {
      for (const otherwise of [() => page.locator('#numbers button').first().click(), () => action('normal')]) {
        await stack.platform('faults', { endpoint: 'create', fault: { status: { status: 503 } } });
        await visitor.click(words.add);
        await visitor.sees('error');
        await stack.platform('faults', undefined, 'DELETE');
        await visitor.reads(expected.failed);
        const before = visitor.count('wpp-create');
        await visitor.looksAgain();
        await visitor.settles();
        assert.equal(await visitor.kind(), 'error');
        await otherwise();
        await visitor.sees('connected');
        await visitor.click(words.check);
        await visitor.settles();
        await reload(visitor, 'connected');
        assert.equal(visitor.count('wpp-create'), before);
        assert.equal((await visitor.numbers()).length, 2);
      }
      visitor.wasWellBut(/^wpp-create: 50[23]$/);
    });

    await step('a failed creation is repeated with a click', async () => {
      await stack.platform('faults', { endpoint: 'create', fault: { status: { status: 503 } } });
      await visitor.click(words.add);
      await visitor.sees('error');
      await looksGood('failed');
      await stack.platform('faults', undefined, 'DELETE');
      await visitor.click(words.retry);
      await showsTheCode(visitor);
      await rows(3);
      await action('remove');
      await rows(2);
      visitor.wasWellBut(/^wpp-create: 50[23]$/);
    });

    await step('a number with a dead key is reconnected with one click', async () => {
      const session = await visitor.session();
      await action('dead');
      await visitor.sees('stuck');
      await visitor.reads(expected.dead);
      await looksGood('dead-key');
      visitor.wasWellBut(/^wpp-qr: 409$/);
      await reload(visitor, 'stuck');
      visitor.wasWellBut(/^wpp-status: 409$/);
      await visitor.click(words['connect-again']);
      await visitor.sees('connected');
      assert.equal(await visitor.session(), session);
      visitor.wasWell();
    });

    await step('a number that a colleague reconnected is shown as connected', async () => {
      await action('dead');
      await visitor.sees('stuck');
      visitor.forgive(/^wpp-(qr|status): 409$/);
      const colleague = await visit(browser, stack.page, { language });
      await colleague.page.getByLabel(words.organization).selectOption(ORGANIZATIONS[language]);
      await colleague.sees('stuck');
      await colleague.click(words['connect-again']);
      await colleague.sees('connected');
      await colleague.leave();
      await visitor.looksAgain();
      await visitor.sees('connected');
      const [row] = await visitor.numbers();
      assert(row.includes(words['state-connected']), row);
      visitor.wasWell();
    });

    await step('a number unlinked on the phone is linked again', async () => {
      await action('unlink');
      await visitor.sees('disconnected');
      await reload(visitor, 'disconnected');
      await looksGood('disconnected');
      await visitor.click(words.link);
      await showsTheCode(visitor);
      visitor.wasWell();
    });

    await step('an expired sign-in is renewed with a click, three times in a row', async () => {
      const session = await visitor.session();
      for (let i = 0; i < 3; i += 1) {
        await action('sign-out');
        await visitor.sees('expired');
        if (i === 0) await looksGood('expired');
        if (i === 1) await reload(visitor, 'expired');
        if (i === 2) await visitor.looksAgain();
        await visitor.click(words['sign-in']);
        await showsTheCode(visitor);
        assert.equal(await visitor.session(), session);
        assert.equal((await visitor.numbers()).length, 2);
        visitor.forgive(/: 401$/);
      }
      visitor.wasWell();
    });

    await step('the other language applies at once and after a reload', async () => {
      const other = language === 'en' ? 'ru' : 'en';
      const button = { en: 'EN, English', ru: 'RU, русский' };
      await visitor.click(button[other]);
      assert.equal(await page.title(), TEXTS[other].page);
      await reload(visitor, 'scan');
      assert.equal(await page.title(), TEXTS[other].page);
      await visitor.click(TEXTS[other].actions.outage[0]);
      await visitor.sees('outage');
      await visitor.click(TEXTS[other].actions.normal[0]);
      await visitor.click(button[language]);
      await showsTheCode(visitor);
      visitor.forgive(/^wpp-qr: 50[23]$/);
      visitor.wasWell();
    });

    await step('another organization has its own numbers', async () => {
      const [own, other] = language === 'en' ? ['en', 'ru'] : ['ru', 'en'];
      await page.getByLabel(words.organization).selectOption(ORGANIZATIONS[other]);
      if (language === 'en') {
        await visitor.sees('nothing');
        assert.deepEqual(await visitor.numbers(), []);
      }
      await page.getByLabel(words.organization).selectOption(ORGANIZATIONS[own]);
      await rows(2);
      await showsTheCode(visitor);
      visitor.wasWell();
    });

    await step('an exception shows the error card', async () => {
      await page.route('**/config.json', (route) => route.fulfill({ body: 'no JSON' }));
      await page.reload();
      await visitor.reads(expected.broken);
      await looksGood('broken');
      await page.unroute('**/config.json');
      await page.locator('#reload').click();
      await showsTheCode(visitor);
      await page.route('**/card.js', (route) => route.abort());
      await page.reload();
      await page.locator('#broken').waitFor();
      await page.unroute('**/card.js');
      await page.locator('#reload').click();
      await showsTheCode(visitor);
      visitor.wasWellBut(/^exception: .*(JSON|config)/, /card\.js: net::ERR_FAILED$/);
    });

    await visitor.leave();
  });
}

test('the layout', async (t) => {
  for (const [language, words] of Object.entries(TEXTS)) {
    /** A visitor with two numbers; the second one waits for a phone. */
    const opened = async (options) => {
      const visitor = await visit(browser, stack.page, { language, ...options });
      await visitor.page.getByLabel(words.organization).selectOption(ORGANIZATIONS[language]);
      const row = visitor.page.locator('#numbers button').nth(1);
      await row.click();
      await until(async () => (await visitor.numbers())[1]?.includes(await visitor.session()));
      await stack.platform('status', { session: await visitor.session(), status: 'qr_required' });
      await visitor.looksAgain();
      await visitor.sees('scan');
      return visitor;
    };

    for (const [width, height] of [[360, 740], [1280, 900]]) {
      await t.test(`nothing moves on ${width} px (${language})`, async () => {
        const visitor = await opened({ viewport: { width, height } });
        const session = await visitor.session();
        await visitor.page.reload();
        await visitor.sees('scan');
        await until(async () => (await visitor.numbers()).length === 2);
        await stack.platform('scan', { session });
        await visitor.sees('connected');
        await stack.platform('faults', { endpoint: '*', fault: { status: { status: 503 } } });
        await visitor.looksAgain();
        await visitor.sees('outage');
        await stack.platform('faults', undefined, 'DELETE');
        await visitor.sees('connected');
        const shift = await visitor.layoutShift();
        assert(shift < 0.05, String(shift));
        await visitor.leave();
      });
    }

    await t.test(`the code is in view on small screens (${language})`, async () => {
      const visitor = await opened();
      // 200 % of 1280x900 and of 1366x768, a phone on its side, small phones.
      for (const [width, height] of [[640, 450], [683, 384], [740, 360], [360, 640], [375, 667]]) {
        await visitor.page.setViewportSize({ width, height });
        await visitor.page.reload();
        await showsTheCode(visitor);
        const { top, bottom, left, right } = await visitor.page.evaluate(() => document.getElementById('drawn').getBoundingClientRect());
        assert(top >= 0 && left >= 0 && bottom <= height && right <= width, `${width}x${height}: ${[top, bottom, left, right]}`);
      }
      await visitor.leave();
    });

    await t.test(`200% text fits into 360 px (${language})`, async () => {
      const visitor = await opened({ viewport: { width: 360, height: 740 } });
      const { page } = visitor;
      const fits = async () => {
        await page.evaluate(() => { document.documentElement.style.fontSize = '200%'; });
        const wide = await page.evaluate(() => [...document.querySelectorAll('body, body *')]
          .filter((element) => element.getBoundingClientRect().right > 360 && !element.closest('.hidden'))
          .map((element) => `${element.tagName} ${element.className || element.id}`));
        assert.deepEqual(wide, []);
        await page.screenshot({ path: join(import.meta.dirname, `../../target/page/${language}-text-${await visitor.kind()}.png`), fullPage: true });
      };
      await fits();
      await stack.platform('scan', { session: await visitor.session() });
      await visitor.looksAgain();
      await visitor.sees('connected');
      await fits();
      await visitor.leave();
    });

    await t.test(`forced colors show the language and a readable code (${language})`, async () => {
      const visitor = await opened({ forcedColors: 'active', colorScheme: 'dark' });
      await showsTheCode(visitor);
      const grounds = await visitor.page.evaluate(() => [...document.querySelectorAll('[data-language]')].map((button) =>
        [button.getAttribute('aria-pressed'), getComputedStyle(button).backgroundColor]));
      assert.equal(new Set(grounds.flat()).size, 4, String(grounds));
      await visitor.leave();
    });
  }

  await t.test('a real code has a margin of 4 modules of at least 5 px, on 360 px', async () => {
    const visitor = await visit(browser, stack.page, { viewport: { width: 360, height: 740 } });
    await visitor.page.locator('#numbers button').nth(1).click();
    await visitor.sees('scan');
    const qr = `2@${'aB3/'.repeat(22)},${'cD4+'.repeat(11)},${'eF5='.repeat(11)},${'gH6/'.repeat(11)}`.slice(0, 225);
    assert.equal(qr.length, 225);
    await stack.platform('faults', { endpoint: 'qr', fault: { body: JSON.stringify({ qr }) } });
    await visitor.readsCode(() => qr);
    const { margin, module } = await visitor.page.evaluate(() => {
      const canvas = document.getElementById('drawn');
      const { data, width } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const first = data.findIndex((value, index) => index % 4 === 0 && value === 0) / 4;
      return { margin: [first % width, Math.floor(first / width)], module: canvas.getBoundingClientRect().width / width };
    });
    assert.deepEqual(margin, [4, 4]);
    assert(module >= 5, `${module} px`);
    await stack.platform('faults', undefined, 'DELETE');
    await visitor.leave();
  });
});

test('what the page polls, and when it stops', async (t) => {
  const step = story(t);
  const visitor = await visit(browser, stack.page, { clock: true });
  const { page } = visitor;
  const words = TEXTS.en;

  /** Counts the calls during `ms`. Waits one round trip more, so that every started call is counted. */
  const asked = async (seconds) => {
    const before = visitor.calls.length;
    await page.clock.fastForward(seconds * 1000);
    await page.evaluate(() => fetch('/config.json'));
    return visitor.calls.length - before;
  };

  await step('a reload during a creation adds no second number', async () => {
    await page.locator('#numbers button').nth(1).click();
    await showsTheCode(visitor);
    await visitor.click(words.actions.scan[0]);
    await visitor.sees('connected');
    const before = (await visitor.numbers()).length;
    await stack.platform('faults', { endpoint: 'create', fault: { delay: { ms: 2000 } }, times: 1 });
    await visitor.click(words.add);
    await until(() => visitor.count('wpp-create') > 0);
    await page.reload();
    await visitor.sees('starting');
    await showsTheCode(visitor);
    await until(async () => (await visitor.numbers()).length > before);
    assert.equal((await visitor.numbers()).length, before + 1);
    // The first request may still be running when the second one arrives.
    visitor.forgive(/^wpp-create: 503$/);
    visitor.wasWell();
  });

  await step('it sends one request at a time', () => assert.equal(visitor.mostAtOnce, 1));

  await step('a hidden page sends no requests', async () => {
    await hide(visitor, true);
    // Calls that were in progress when the page was hidden still finish.
    await asked(60);
    assert.equal(await asked(60), 0);
    const before = visitor.calls.length;
    await hide(visitor, false);
    await until(() => visitor.calls.length > before);
    await visitor.settles();
    visitor.wasWell();
  });

  await step('it stops after five minutes and continues with a click', async () => {
    await showsTheCode(visitor);
    await asked(300);
    await visitor.sees('paused');
    await visitor.looksGood('en-paused');
    assert.equal(await asked(3600), 0);
    await visitor.click(words['go-on']);
    await showsTheCode(visitor);
    await asked(300);
    await visitor.sees('paused');
    await visitor.looksAgain();
    await showsTheCode(visitor);
    visitor.wasWell();
  });

  await step('it stops when the number is connected', async () => {
    await visitor.click(words.actions.scan[0]);
    await visitor.sees('connected');
    await asked(60);
    assert.equal(await asked(3600), 0);
    visitor.wasWell();
  });

  await visitor.leave();
});

test('a page of an unknown origin shows that the service is not responding', async () => {
  const elsewhere = stack.page.replace('127.0.0.1', 'localhost');
  const visitor = await visit(browser, elsewhere);
  await visitor.sees('outage');
  await visitor.reads(EXPECTED.en.down);
  await visitor.looksGood('en-no-answer');
  visitor.wasWellBut(/blocked by CORS policy/, /^wpp-status: net::ERR_FAILED$/);
  await visitor.leave();
});
