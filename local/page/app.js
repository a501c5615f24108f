// The page: what a person does, what that asks of the functions, and what is shown of the answers.

import { createApi } from './api.js';
import * as cards from './card.js';
import * as memory from './memory.js';
import { PAUSE_MS, pause, watch } from './poll.js';
import { accessToken, signIn, user } from './sign_in.js';
import { createSimulator } from './simulator.js';
import { speak, spoken } from './text.js';
import { showCall, showCard, showLanguage, showNumbers, showPeople, tick } from './view.js';

const config = await (await fetch('/config.json')).json();
const api = createApi(config, { accessToken, language: spoken, onCall: showCall });
const simulator = createSimulator(config, {
  session: () => memory.number.get()?.session,
  expireSignIn: () => signIn(user(), -3600),
  changed: () => start(check),
});

/** The organization's numbers, each with the last answer about it; null until they are read. */
let numbers = null;

/** What is shown of the number on the card. */
let card = cards.loading;

/** Whatever is under way ends when something else is begun. */
let scene = new AbortController();

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

/** From the beginning: goes on with what a reload has interrupted, else shows the numbers and one of them. */
async function open(signal) {
  if (memory.intent.get()) return create(signal);
  show(cards.loading);
  const read = await readNumbers(signal);
  if (!read.ok) return show(cards.cardOf({ failure: read }));
  const number = numbers.find(isShown) ?? numbers[0];
  return number ? showNumber(number, signal) : show(cards.nothing);
}

async function showNumber(number, signal) {
  const { id, session, answer } = number;
  memory.number.set({ id, session });
  draw();
  if (!answer.ok) return show(cards.cardOf({ failure: answer }));
  // What was seen last is what an outage leaves to be shown.
  const view = answer.stale ? { ...answer, trouble: { error: answer.message, retryAfterMs: 0 } } : answer;
  show(cards.cardOf(view));
  await follow(session, signal);
}

/** Carries out the `wpp-create` that is wanted, which a reload or an error does not make another one. */
async function create(signal) {
  show(cards.starting);
  const body = memory.intent.get();
  let answer = await api.create(body, signal);
  // The request that a reload has interrupted is still at it.
  while (answer.code === 'creation_in_progress') {
    await pause(Math.max(answer.retryAfterMs, PAUSE_MS), signal);
    answer = await api.create(body, signal);
  }
  if (!answer.ok) {
    if (!answer.retryable && !cards.isSignedOut(answer)) memory.intent.set(null);
    return show(cards.cardOf({ failure: answer }));
  }
  memory.intent.set(null);
  memory.number.set({ session: answer.session });
  show(cards.cardOf(answer));
  await Promise.all([follow(answer.session, signal), readNumbers(signal)]);
}

/** A live look at the number on the card, and at the others. */
async function check(signal) {
  const { session } = memory.number.get() ?? {};
  if (memory.intent.get() || !session) return open(signal);
  await Promise.all([follow(session, signal), readNumbers(signal)]);
}

async function follow(session, signal) {
  const before = card.kind;
  const row = () => numbers?.find((number) => number.session === session);
  const answer = row()?.answer;
  const known = answer?.ok ? { ...answer, isLive: false } : null;
  for await (const view of watch(api, session, known, signal)) {
    show(cards.cardOf(view));
    const number = row();
    if (number) number.answer = view.failure ?? { ...view, ok: true };
    draw();
  }
  // The first number that is linked becomes the primary one.
  if (card.kind === 'connected' && before !== 'connected') await readNumbers(signal);
}

/** Reads the list, and asks for each number that is not on the card. */
async function readNumbers(signal) {
  const read = await api.numbers(signal);
  if (!read.ok) return read;
  const known = new Map((numbers ?? []).map((number) => [number.id, number]));
  numbers = read.numbers.map((number) => ({ ...known.get(number.id), ...number }));
  draw();
  for (const number of numbers) {
    if (number.answer && isShown(number)) continue;
    number.answer = await api.status({ integration_id: number.id }, signal);
    number.session ??= number.answer.account_number;
    if (cards.isSignedOut(number.answer)) return number.answer;
    draw();
  }
  return read;
}

function isShown({ id, session }) {
  const shown = memory.number.get();
  return Boolean(shown) && (session === shown.session || id === shown.id);
}

function show(next) {
  card = next;
  draw();
}

function draw() {
  showCard(card);
  showNumbers(numbers, isShown);
  simulator.show(card.kind === 'scan');
}

/** A new intention, which a reload carries out too. */
function want(body) {
  memory.intent.set(body);
  return start(create);
}

const actions = {
  connect: () => want({}),
  add: () => want({ add_new: true }),
  link: () => want({ session: memory.number.get().session }),
  'connect-again': () => {
    const { id, session } = memory.number.get() ?? {};
    return want({ force_recreate: true, ...(session ? { session } : id && { integration_id: id }) });
  },
  retry: () => start(open),
  reload: () => start(open),
  check: () => start(check),
  'go-on': () => start(check),
  'sign-in': async () => {
    await signIn(user());
    return start(open);
  },
};

async function signInAs(someone) {
  await signIn(someone);
  memory.intent.set(null);
  memory.number.set(null);
  numbers = null;
  return start(open);
}

function speakTo(language) {
  speak(language);
  showLanguage(language);
  draw();
}

document.addEventListener('click', ({ target }) => {
  const { act, number, language } = target.closest('button')?.dataset ?? {};
  if (act) actions[act]();
  if (number) start((signal) => showNumber(numbers.find(({ id }) => id === number), signal));
  if (language) {
    speakTo(language);
    start(check);
  }
});
document.getElementById('people').addEventListener('change', ({ target }) => signInAs(target.value));
setInterval(tick, 1000);

speakTo(spoken());
const people = config.people.map((person) => person.user);
if (!people.includes(user())) await signIn(people[0]);
showPeople(config.people, user());
start(open);
