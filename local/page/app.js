// The page: handles what a person does, calls the functions, and shows their answers.

import { createApi } from './api.js';
import * as cards from './card.js';
import * as memory from './memory.js';
import { PAUSE_MS, pause, pauseAfter, watch } from './poll.js';
import { accessToken, signIn, user } from './sign_in.js';
import { createSimulator } from './simulator.js';
import { currentLanguage, setLanguage, text } from './text.js';
import { bringCard, keepingFocus, nameOf, showAdding, showCall, showCard, showLanguage, showNumbers, showPeople } from './view.js';

/** All events of one return to the page arrive within this time. */
const RETURN_MS = 100;

/** The organization's numbers, each with the last answer about it; null until they are read. */
let numbers = null;

/** The view of the number on the card. */
let card = cards.loading;

/** The current work; new work aborts it. */
let scene = new AbortController();

/** The signal of the `wpp-create` in progress. No second one is started meanwhile. */
let creation = null;

/** The refresh that a return to the page has started. */
let comingBack = 0;

async function start(work) {
  scene.abort();
  scene = new AbortController();
  const { signal } = scene;
  try {
    await work(signal);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** Starts the page: continues the creation that a reload interrupted, otherwise shows the numbers. */
async function open(signal) {
  if (memory.intent.get()) return create(signal);
  show(cards.loading);
  return refresh(signal);
}

/** Refreshes everything: the list, the number on the card, the others. Forgets an unfinished creation. */
async function refresh(signal) {
  memory.intent.set(null);
  const read = await insist(() => readList(signal), signal);
  if (!read.ok) return show(cards.cardOf({ failure: read }));
  const chosen = memory.number.get();
  // A number that was just created has no id yet.
  const isNew = chosen?.session && !chosen.id;
  const number = chosenNumber() ?? (isNew ? { session: chosen.session } : numbers[0]);
  if (!number) {
    memory.number.set(null);
    return show(cards.noNumber);
  }
  await Promise.all([follow(number, signal), askOthers(number, signal)]);
}

/** Polls until there is an answer or a permanent error; until then, the card shows what is wrong. */
async function insist(ask, signal) {
  for (let failures = 1; ; failures += 1) {
    const answer = await ask();
    if (answer.ok || !answer.retryable) return answer;
    show(cards.cardOf({ ...chosenNumber()?.answer, trouble: answer }));
    await pause(pauseAfter(answer, failures), signal);
  }
}

/** Shows a number until its state can no longer change; `created` is the answer of `wpp-create`, if it was just created. */
async function follow(number, signal, created = null) {
  choose(number);
  if (!number.answer?.ok || !number.session) {
    const answer = await insist(() => ask(number, signal), signal);
    if (!answer.ok) return fail(answer, number, signal);
  }
  if (card.kind === 'loading' || !number.session) show(cards.cardOf(number.answer));
  if (!number.session) return;
  const known = created ?? { ...number.answer, isLive: false };
  let wasConnected = known.status === 'connected';
  for await (const view of watch(api, number.session, known, signal)) {
    if (view.failure) return fail(view.failure, number, signal);
    // The list may already contain the number that was just created.
    const row = chosenNumber() ?? number;
    row.answer = { ...view, ok: true, trouble: null, paused: false };
    show(cards.cardOf(view));
    // The first connected number becomes the primary one.
    if (card.kind === 'connected' && !wasConnected) await readList(signal);
    wasConnected = card.kind === 'connected';
  }
}

/** Shows a permanent error. If the number was deleted, shows the others instead. */
async function fail(failure, number, signal) {
  number.answer = failure;
  if (failure.code === 'number_not_found') {
    memory.number.set(null);
    const read = await readList(signal);
    if (read.ok && !numbers.some(({ id, session }) => id === number.id || session === number.session)) return refresh(signal);
  }
  show(cards.cardOf({ failure }));
}

/** Sends the pending `wpp-create`. A reload or an error repeats it, which does not create a second number. */
async function create(signal) {
  const body = memory.intent.get();
  creation = signal;
  show(cards.starting);
  let answer;
  try {
    answer = await api.create(body, signal);
    // The request that a reload interrupted is still running.
    while (answer.code === 'creation_in_progress') {
      await pause(Math.max(answer.retryAfterMs, PAUSE_MS), signal);
      answer = await api.create(body, signal);
    }
  } finally {
    if (creation === signal) creation = null;
  }
  if (!answer.ok) {
    if (!answer.retryable && !cards.isSignedOut(answer)) memory.intent.set(null);
    // New credentials are requested for a named number.
    const failure = body.add_new && cards.isStuck(answer) ? { ...answer, code: null } : answer;
    return show(cards.cardOf({ failure }));
  }
  memory.intent.set(null);
  const number = { session: answer.session, answer };
  choose(number);
  show(cards.cardOf(answer));
  await Promise.all([follow(number, signal, { ...answer, isLive: true }), readList(signal).then(() => askOthers(number, signal))]);
}

async function readList(signal) {
  const read = await api.numbers(signal);
  if (!read.ok) return read;
  const known = new Map((numbers ?? []).map((number) => [number.id, number]));
  numbers = read.numbers.map((number) => Object.assign(known.get(number.id) ?? {}, number));
  draw();
  return read;
}

/** Polls every number except the one on the card. */
async function askOthers(shown, signal) {
  for (const number of numbers ?? []) {
    if (number === shown) continue;
    const answer = await ask(number, signal);
    if (cards.isSignedOut(answer)) return;
    draw();
  }
}

async function ask(number, signal) {
  number.answer = await api.status(number.id ? { integration_id: number.id } : { session: number.session }, signal);
  number.session ??= number.answer.account_number;
  if (isChosen(number)) choose(number);
  return number.answer;
}

function isChosen({ id, session }) {
  const chosen = memory.number.get();
  if (!chosen) return false;
  return chosen.id ? id === chosen.id : session === chosen.session;
}

const chosenNumber = () => numbers?.find(isChosen);

function choose({ id, session }) {
  memory.number.set({ id, session });
}

function show(next) {
  card = next;
  draw();
}

function draw() {
  keepingFocus(() => {
    const number = chosenNumber() ?? memory.number.get();
    const isNew = creation && memory.intent.get()?.add_new;
    showCard(card, isNew ? text('newNumber') : number && nameOf(number));
    showNumbers(numbers, isChosen);
    showAdding(Boolean(isNew));
    simulator.show(card.kind === 'scan');
  });
}

/** Starts a new creation, which a reload continues. */
function want(body) {
  if (creation) return;
  // An error of the new number must not bring back the number that was shown before.
  if (body.add_new) memory.number.set(null);
  memory.intent.set(body);
  start(create);
  bringCard();
}

const actions = {
  connect: () => want({}),
  add: () => want({ add_new: true }),
  link: () => want(named()),
  'connect-again': () => want({ force_recreate: true, ...named() }),
  retry: () => start(open),
  reload: () => start(open),
  check: () => start(refresh),
  'go-on': () => start(refresh),
  'sign-in': async () => {
    if (await signIn(user())) return start(open);
    show(cards.notSignedIn);
  },
};

/** The fields that name the number on the card for `wpp-create`. */
function named() {
  const { id, session } = memory.number.get() ?? {};
  if (session) return { session };
  return id ? { integration_id: id } : {};
}

function showNumber(id) {
  choose(numbers.find((number) => number.id === id));
  const { answer } = chosenNumber();
  start((signal) => {
    show(answer?.ok ? cards.cardOf(answer) : cards.loading);
    return refresh(signal);
  });
  bringCard();
}

async function signInAs(person) {
  scene.abort();
  memory.intent.set(null);
  memory.number.set(null);
  numbers = null;
  show(cards.loading);
  if (!(await signIn(person))) return show(cards.notSignedIn);
  return start(open);
}

/** Refreshes when a person returns to the page or the network changes: the state may have changed. */
function comeBack() {
  clearTimeout(comingBack);
  comingBack = setTimeout(() => {
    if (document.hidden || creation) return;
    // A failed creation is repeated only by the person, or if the network was the cause.
    if (!memory.intent.get()) start(refresh);
    else if (card.kind === 'offline' && navigator.onLine) start(create);
  }, RETURN_MS);
}

function speakTo(language) {
  memory.language.set(language);
  setLanguage(language);
  showLanguage(language);
  draw();
  // Requests the functions' sentences in the new language, unless that would create something.
  if ((card.sentence || card.note) && !memory.intent.get()) start(refresh);
}

// After a reload, the focus goes to the card first, too.
history.scrollRestoration = 'manual';
setLanguage(currentLanguage());
showLanguage(currentLanguage());
showCard(card);

const config = await (await fetch('/config.json')).json();
const api = createApi(config, { accessToken, language: currentLanguage, onCall: showCall });
const simulator = createSimulator(config, {
  session: () => memory.number.get()?.session,
  expireSignIn: () => signIn(user(), -3600),
  changed: () => creation || start(refresh),
});

document.addEventListener('click', ({ target }) => {
  const button = target.closest('button');
  if (!button || button.getAttribute('aria-disabled') === 'true') return;
  const { act, number, language } = button.dataset;
  if (act) actions[act]();
  if (number) showNumber(number);
  if (language) speakTo(language);
});
document.getElementById('people').addEventListener('change', ({ target }) => signInAs(target.value));
document.addEventListener('visibilitychange', comeBack);
for (const event of ['focus', 'online', 'offline']) window.addEventListener(event, comeBack);

const people = config.people.map((person) => person.user);
const isKnown = people.includes(user()) || (await signIn(people[0]));
showPeople(config.people, user());
start(isKnown ? open : () => show(cards.notSignedIn));
