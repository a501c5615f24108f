// Renders a card, the list and the last calls. Elements are reused, so that they keep the focus.

import { stateOf } from './card.js';
import * as qr from './qr.js';
import { currentLanguage, text, time } from './text.js';

const element = (id) => document.getElementById(id);

/** Makes a change and keeps the focus; if the focused element is hidden or removed, the card gets it. */
export function keepingFocus(change) {
  const focused = document.activeElement;
  change();
  if (!focused || focused === document.body || (document.activeElement === focused && isShown(focused))) return;
  (isShown(focused) ? focused : element('title')).focus({ preventScroll: true });
}

const isShown = (element) => element.getClientRects().length > 0;

/** Scrolls to the card and focuses it, because it shows the result of what the person just did. */
export function bringCard() {
  element('title').focus({ preventScroll: true });
  const { top, bottom } = element('card').getBoundingClientRect();
  if (top < 0 || bottom > window.innerHeight) element('card').scrollIntoView();
}

/** Shows a card about the number with this name. */
export function showCard(card, name) {
  element('card').dataset.kind = card.kind;
  say(element('which'), name ?? '');
  say(element('title'), text(card.title));
  // If a sentence from the functions is in another language, the page shows its own text instead.
  const isInLanguage = card.language === currentLanguage();
  const sentence = isInLanguage ? card.sentence : card.sentence && text('repeat');
  say(element('text'), sentence ?? (card.text ? text(card.text, { time: card.at && time(card.at) }) : ''));
  say(element('note'), card.note && isInLanguage ? card.note : '');
  say(element('last'), card.known ? lastKnown(card.known) : '');
  for (const place of document.querySelectorAll('[data-more]')) place.hidden = place.dataset.more !== card.more;
  const act = element('act');
  act.hidden = !card.act;
  if (card.act) {
    act.dataset.act = card.act;
    say(element('act'), text(card.act));
  }
  element('check').hidden = !card.check;
  element('actions').hidden = !card.act && !card.check;
  for (const place of document.querySelectorAll('.linking')) place.hidden = !['starting', 'scan'].includes(card.kind);
  showCode(card);
}

/** Sets a text, unless it is unchanged: a screen reader would read it again. */
export function fill(place, words) {
  if (place.textContent !== words) place.textContent = words;
}

function say(place, words) {
  fill(place, words);
  place.hidden = words === '';
}

const stateWords = (state) => text(`state-${state}`) ?? text('unknown');

function lastKnown({ status, seenAt }) {
  const state = stateWords(status).toLowerCase();
  return seenAt ? text('lastKnownAt', { state, time: time(seenAt) }) : text('lastKnown', { state });
}

/** The code on the screen. */
let shown = null;

function showCode({ qr: code = null, format }) {
  if (code === shown) return;
  shown = code;
  if (code) qr.draw(code, format, element('drawn'), element('picture'));
  else for (const id of ['drawn', 'picture']) element(id).hidden = true;
}

/** Shows the numbers, each as a button that moves it to the card; `isChosen` tells which one is on the card. */
export function showNumbers(numbers, isChosen) {
  element('no-numbers').hidden = numbers === null || numbers.length > 0;
  element('add').hidden = !numbers?.length;
  const list = element('numbers');
  const before = new Map([...list.children].map((row) => [row.firstElementChild.dataset.number, row]));
  const rows = (numbers ?? []).map((number) => {
    const row = before.get(number.id) ?? emptyRow();
    before.delete(number.id);
    fillRow(row, number, isChosen(number));
    return row;
  });
  for (const row of before.values()) row.remove();
  rows.forEach((row, index) => {
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
  });
}

/** Shows whether a number is being added. The button stays where it is, with the focus. */
export function showAdding(isAdding) {
  element('add').setAttribute('aria-disabled', String(isAdding));
  fill(element('add'), text(isAdding ? 'adding' : 'add'));
}

function emptyRow() {
  const row = document.createElement('li');
  const button = document.createElement('button');
  button.type = 'button';
  for (const name of ['name', 'badge', 'pill', 'about']) {
    button.append(Object.assign(document.createElement('span'), { className: name }), ' ');
  }
  row.append(button);
  return row;
}

/** A number's label: its name in the product, and the end of its session, because several may have the same name. */
export function nameOf({ name, session, answer }) {
  return [answer?.name ?? name, session?.replace(/^.+(?=.{4}$)/, '…')].filter(Boolean).join(' · ');
}

function fillRow(row, number, isChosen) {
  const { id, name, session, is_primary, created_at, answer } = number;
  const button = row.firstElementChild;
  const state = stateOf(answer);
  button.dataset.number = id;
  button.setAttribute('aria-current', String(isChosen));
  const put = (part, words) => say(button.querySelector(`.${part}`), words);
  put('name', answer?.name ?? name);
  put('badge', is_primary ? text('primary') : '');
  put('pill', state in OWN_STATES ? text(state) : stateWords(state));
  button.querySelector('.pill').dataset.state = state;
  const about = [
    session,
    text('added', { time: time(created_at) }),
    answer?.stale && answer.seen_at && text('seen', { time: time(answer.seen_at) }),
    state === 'connected' && text(answer.code === 'webhook_pending' ? 'pending' : 'registered'),
  ];
  put('about', about.filter(Boolean).join(' · '));
}

/** The states that the page names itself. */
const OWN_STATES = { checking: 1, unknown: 1, attention: 1 };

/** How many calls are shown. */
const CALLS = 5;

/** Shows an answered call, above the earlier ones. */
export function showCall({ name, ms, code }) {
  const call = document.createElement('li');
  const result = Object.assign(document.createElement('span'), { textContent: code ?? text('ok') });
  result.dataset.ok = String(!code);
  call.append(name === 'numbers' ? text('list') : name, ' ', result, ` ${ms} ms`);
  element('calls').prepend(call);
  while (element('calls').children.length > CALLS) element('calls').lastElementChild.remove();
}

/** Shows who can sign in. */
export function showPeople(people, user) {
  const options = people.map((person) => new Option(person.organization, person.user, false, person.user === user));
  element('people').replaceChildren(...options);
}

/** Marks the current language. */
export function showLanguage(language) {
  for (const button of document.querySelectorAll('[data-language]')) {
    button.setAttribute('aria-pressed', String(button.dataset.language === language));
  }
}
