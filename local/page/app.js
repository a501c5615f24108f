// The page: what a person does, what that asks of the functions, and what is shown of the answers.

import { createApi } from './api.js';
import * as cards from './card.js';
import * as memory from './memory.js';
import { PAUSE_MS, pause, pauseAfter, watch } from './poll.js';
import { accessToken, signIn, user } from './sign_in.js';
import { createSimulator } from './simulator.js';
import { speak, spoken, text } from './text.js';
import { bringCard, keepingFocus, nameOf, showAdding, showCall, showCard, showLanguage, showNumbers, showPeople } from './view.js';

/** The several events of one return to the page come within this time. */
const RETURN_MS = 100;

/** The organization's numbers, each with the last answer about it; null until they are read. */
let numbers = null;

/** What is shown of the number on the card. */
let card = cards.loading;

/** The work that is under way; other work ends it. */
let scene = new AbortController();

/** The signal of the `wpp-create` that is under way. No other one is begun beside it. */
let creation = null;

/** The look that a return to the page has begun. */
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

/** From the beginning: carries out the creation that a reload has interrupted, otherwise shows what there is. */
async function open(signal) {
  if (memory.intent.get()) return create(signal);
  show(cards.loading);
  return look(signal);
}

/** Asks anew for everything that is shown: the list, the number on the card, the others. What was to be created is forgotten. */
async function look(signal) {
  memory.intent.set(null);
  const read = await insist(() => readList(signal), signal);
  if (!read.ok) return show(cards.cardOf({ failure: read }));
  const chosen = memory.number.get();
  // A number that was just created has no id yet.
  const isNew = chosen?.session && !chosen.id;
  const number = chosenNumber() ?? (isNew ? { session: chosen.session } : numbers[0]);
  if (!number) {
    memory.number.set(null);
    return show(cards.nothing);
  }
  await Promise.all([follow(number, signal), askOthers(number, signal)]);
}

/** Asks until there is an answer or a lasting error; meanwhile the card says what is in the way. */
async function insist(ask, signal) {
  for (let failures = 1; ; failures += 1) {
    const answer = await ask();
    if (answer.ok || !answer.retryable) return answer;
    show(cards.cardOf({ ...chosenNumber()?.answer, trouble: answer }));
    await pause(pauseAfter(answer, failures), signal);
  }
}

/** Shows a number until nothing more is to come; `created` is what `wpp-create` has just answered. */
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
    // The list may hold the number that was just created by now.
    const row = chosenNumber() ?? number;
    row.answer = { ...view, ok: true, trouble: null, paused: false };
    show(cards.cardOf(view));
    // The first number that is connected becomes the primary one.
    if (card.kind === 'connected' && !wasConnected) await readList(signal);
    wasConnected = card.kind === 'connected';
  }
}

/** Shows a lasting error. Instead of a number that was deleted, the others are shown. */
async function fail(failure, number, signal) {
  number.answer = failure;
  if (failure.code === 'number_not_found') {
    memory.number.set(null);
    const read = await readList(signal);
    if (read.ok && !numbers.some(({ id, session }) => id === number.id || session === number.session)) return look(signal);
  }
  show(cards.cardOf({ failure }));
}

/** Carries out the `wpp-create` that is wanted. A reload or an error repeats it, which makes no second number. */
async function create(signal) {
  const body = memory.intent.get();
  creation = signal;
  show(cards.starting);
  let answer;
  try {
    answer = await api.create(body, signal);
    // The request that a reload has interrupted is still at work.
    while (answer.code === 'creation_in_progress') {
      await pause(Math.max(answer.retryAfterMs, PAUSE_MS), signal);
      answer = await api.create(body, signal);
    }
  } finally {
    if (creation === signal) creation = null;
  }
  if (!answer.ok) {
    if (!answer.retryable && !cards.isSignedOut(answer)) memory.intent.set(null);
    // New credentials are for a number that is named.
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

/** Asks for every number but the one on the card. */
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

/** A new intention, which a reload carries out too. */
function want(body) {
  if (creation) return;
  // An error of the new number must not lead to the number that was shown before.
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
  check: () => start(look),
  'go-on': () => start(look),
  'sign-in': async () => {
    if (await signIn(user())) return start(open);
    show(cards.notSignedIn);
  },
};

/** The number on the card, as `wpp-create` is told of it. */
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
    return look(signal);
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

/** A person looks at the page again, or the network has changed: so much may have happened meanwhile. */
function comeBack() {
  clearTimeout(comingBack);
  comingBack = setTimeout(() => {
    if (document.hidden || creation) return;
    // What was asked for and failed is asked for again only by the person, or because it was the network.
    if (!memory.intent.get()) start(look);
    else if (card.kind === 'offline' && navigator.onLine) start(create);
  }, RETURN_MS);
}

function speakTo(language) {
  memory.language.set(language);
  speak(language);
  showLanguage(language);
  draw();
  // The functions' sentences are asked for again, unless that would create something.
  if ((card.said || card.note) && !memory.intent.get()) start(look);
}

// After a reload, too, the card comes first.
history.scrollRestoration = 'manual';
speak(spoken());
showLanguage(spoken());
showCard(card);

const config = await (await fetch('/config.json')).json();
const api = createApi(config, { accessToken, language: spoken, onCall: showCall });
const simulator = createSimulator(config, {
  session: () => memory.number.get()?.session,
  expireSignIn: () => signIn(user(), -3600),
  changed: () => creation || start(look),
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
