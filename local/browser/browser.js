// A visitor with a browser: what they see, hidden errors, and what a camera reads.

import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { chromium } from 'playwright-core';
import jsqr from 'jsqr';
import { PNG } from 'pngjs';

import { MISSING, makeOld } from './old_browsers.js';

const PICTURES = join(import.meta.dirname, '../../target/page');
const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** How long a test waits for something to happen. */
const TIMEOUT_MS = 20_000;

const WIDTHS = [360, 768, 1440];

/** Starts a browser that can only reach this machine; other tools control it through `port`. */
export const launch = ({ port } = {}) => chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  chromiumSandbox: process.getuid() !== 0,
  args: [
    '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ...(port ? [`--remote-debugging-port=${port}`] : []),
  ],
});

/** Opens the page at `url` as a new visitor, in a separate window that behaves like an old browser. */
export async function visit(browser, url, { language = 'en', ...options } = {}) {
  const locale = { en: 'en-GB', ru: 'ru-RU' }[language];
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale, ...options });
  await context.addInitScript(makeOld, MISSING);
  await context.addInitScript(watchPage);
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT_MS);
  if (options.clock) await page.clock.install();
  const visitor = new Visitor(context, page);
  await page.goto(url);
  return visitor;
}

/** Reports a lost focus, and measures the cumulative layout shift. Runs in the page. */
function watchPage() {
  addEventListener('focusout', () => setTimeout(() => {
    if (document.activeElement === document.body) console.error('the focus is lost');
  }, 50));
  // As browsers define it: the largest sum within 5 s, with less than a second between two shifts.
  window.layoutShift = 0;
  let [sum, begun, last] = [0, 0, 0];
  new PerformanceObserver((list) => {
    for (const { value, hadRecentInput, startTime } of list.getEntries()) {
      if (hadRecentInput) continue;
      if (startTime - last > 1000 || startTime - begun > 5000) [sum, begun] = [0, startTime];
      [sum, last] = [sum + value, startTime];
      window.layoutShift = Math.max(window.layoutShift, sum);
    }
  }).observe({ type: 'layout-shift', buffered: true });
}

class Visitor {
  /** The errors: console errors, exceptions, failed requests. */
  #troubles = [];
  /** The calls to the functions: `{name, body}`. */
  calls = [];
  /** The most of them that were in progress at once. */
  mostAtOnce = 0;
  #underWay = new Set();

  constructor(context, page) {
    this.context = context;
    this.page = page;
    page.on('pageerror', (error) => this.#troubles.push(`exception: ${error.stack || error.message}`));
    page.on('console', (message) => {
      // A failed request is reported below, with its name.
      const told = message.text().startsWith('Failed to load resource');
      if (['error', 'warning'].includes(message.type()) && !told) this.#troubles.push(`console: ${message.text()}`);
    });
    page.on('requestfailed', (request) => {
      const why = request.failure().errorText;
      // The page cancels requests that it no longer needs.
      if (why !== 'net::ERR_ABORTED') this.#troubles.push(`${nameOf(request)}: ${why}`);
    });
    page.on('response', (response) => {
      if (response.status() >= 400) this.#troubles.push(`${nameOf(response.request())}: ${response.status()}`);
    });
    page.on('request', (request) => {
      if (request.method() === 'POST' && request.url().includes('/functions/v1/')) {
        this.calls.push({ name: nameOf(request), body: request.postDataJSON() });
        this.#underWay.add(request);
        this.mostAtOnce = Math.max(this.mostAtOnce, this.#underWay.size);
      }
    });
    for (const end of ['requestfinished', 'requestfailed']) {
      page.on(end, (request) => this.#underWay.delete(request));
    }
  }

  /** Waits until the card is of this kind. */
  sees(kind) {
    return this.page.locator(`#card[data-kind="${kind}"]`).waitFor();
  }

  /** The kind of the card. */
  kind() {
    return this.page.locator('#card').getAttribute('data-kind');
  }

  /** Waits until a text is visible. */
  reads(words) {
    return this.page.getByText(words).first().waitFor();
  }

  click(name, options = {}) {
    return this.page.getByRole('button', { name, exact: true, ...options }).click();
  }

  /** The rows of the list, as read from left to right. */
  async numbers() {
    return (await this.page.locator('#numbers button').allInnerTexts()).map((row) => row.replace(/\s+/g, ' '));
  }

  /** The session of the number on the card. */
  session() {
    return this.page.evaluate(() => JSON.parse(sessionStorage.getItem('number'))?.session);
  }

  /** What a camera reads from the screen; `undefined` if there is no code. */
  async readCode() {
    const { width, height, data } = PNG.sync.read(await this.page.locator('.frame').screenshot());
    return jsqr(new Uint8ClampedArray(data), width, height)?.data;
  }

  /** Waits until the camera reads what `text` gives. */
  async readsCode(text) {
    await until(async () => {
      const [read, shown] = [await this.readCode(), await text()];
      return Boolean(read) && read === shown;
    });
  }

  /** Does what happens when a person returns to the page. */
  looksAgain() {
    return this.page.evaluate(() => window.dispatchEvent(new Event('focus')));
  }

  /** Waits until the page has started to refresh after a return. */
  settles() {
    return this.page.waitForTimeout(300);
  }

  /** The cumulative layout shift so far, without shifts caused by clicks or keys. */
  layoutShift() {
    return this.page.evaluate(() => window.layoutShift);
  }

  /** The calls of a function so far. */
  count(name) {
    return this.calls.filter((call) => call.name === name).length;
  }

  /** Asserts that exactly these errors happened. */
  wasWellBut(...meant) {
    const troubles = this.#troubles.splice(0);
    assert.deepEqual(troubles.filter((trouble) => !meant.some((one) => one.test(trouble))), []);
    for (const one of meant) assert(troubles.some((trouble) => one.test(trouble)), `${one} in ${troubles}`);
  }

  /** Forgets these errors, which may have happened or not. */
  forgive(trouble) {
    this.#troubles = this.#troubles.filter((one) => !trouble.test(one));
  }

  /** Asserts that there were no errors. */
  wasWell() {
    this.wasWellBut();
  }

  /** Runs axe at each width, light and dark. The screenshots are kept. */
  async looksGood(name) {
    await mkdir(PICTURES, { recursive: true });
    const before = this.page.viewportSize();
    for (const width of WIDTHS) {
      await this.page.setViewportSize({ width, height: 900 });
      for (const colorScheme of ['light', 'dark']) {
        await this.page.emulateMedia({ colorScheme });
        await this.page.screenshot({ path: join(PICTURES, `${name}-${width}-${colorScheme}.png`), fullPage: true });
        const wide = await this.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert(wide <= 0, `${name} is ${wide} px too wide at ${width}`);
        assert.deepEqual(await this.#findings(), [], `${name} at ${width}, ${colorScheme}`);
      }
    }
    await this.page.emulateMedia({ colorScheme: 'light' });
    await this.page.setViewportSize(before);
  }

  async #findings() {
    await this.page.evaluate(AXE);
    const { violations } = await this.page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target} ${node.failureSummary}`)}`);
  }

  leave() {
    return this.context.close();
  }
}

/** The function's name, or the address. */
function nameOf(request) {
  const url = request.url();
  return url.includes('/functions/v1/') ? new URL(url).pathname.split('/').at(-1) : url;
}

/** Polls until the condition holds. */
export async function until(condition) {
  const end = Date.now() + TIMEOUT_MS;
  while (!(await condition())) {
    assert(Date.now() < end, `not so after ${TIMEOUT_MS} ms: ${condition}`);
  }
}
