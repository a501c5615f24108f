// Puts a card, the list and the last calls into the document. The elements stay, so that the focus stays on them.

import { stateOf } from './card.js';
import * as qr from './qr.js';
import { spoken, text, time } from './text.js';

const element = (id) => document.getElementById(id);

/** Makes a change, and keeps the focus: what is hidden or taken away passes it on to the card. */
export function keepingFocus(change) {
  const focused = document.activeElement;
  change();
  if (!focused || focused === document.body || (document.activeElement === focused && isShown(focused))) return;
  (isShown(focused) ? focused : element('title')).focus({ preventScroll: true });
}

const isShown = (element) => element.getClientRects().length > 0;

/** Brings the card into view and gives it the focus: what a person has just asked for happens there. */
export function bringCard() {
  element('title').focus({ preventScroll: true });
  const { top, bottom } = element('card').getBoundingClientRect();
  if (top < 0 || bottom > window.innerHeight) element('card').scrollIntoView();
}

/** Shows a card about the number that is called `name`. */
export function showCard(card, name) {
  element('card').dataset.kind = card.kind;
  say(element('which'), name ?? '');
  say(element('title'), text(card.title));
  // A sentence of the functions in another language than the page's gives way to words of the page.
  const isSpoken = card.language === spoken();
  const said = isSpoken ? card.said : card.said && text('repeat');
  say(element('text'), said ?? (card.text ? text(card.text, { time: card.at && time(card.at) }) : ''));
  say(element('note'), card.note && isSpoken ? card.note : '');
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

/** Puts words into a place. The same words are left alone: a screen reader would say them again. */
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

/** Shows the numbers, each a button that brings it onto the card; `isChosen` tells which is there now. */
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

/** What a number is called: its name in the product, and the end of the platform's name for it, since several may be called the same. */
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
  put('pill', state in SAID ? text(state) : stateWords(state));
  button.querySelector('.pill').dataset.state = state;
  const about = [
    session,
    text('added', { time: time(created_at) }),
    answer?.stale && answer.seen_at && text('seen', { time: time(answer.seen_at) }),
    state === 'connected' && text(answer.code === 'webhook_pending' ? 'pending' : 'registered'),
  ];
  put('about', about.filter(Boolean).join(' · '));
}

/** States that the page names itself. */
const SAID = { checking: 1, unknown: 1, attention: 1 };

/** How many calls are shown. */
const CALLS = 5;

/** Shows a call that has been answered, above those before it. */
export function showCall({ name, ms, code }) {
  const call = document.createElement('li');
  const said = Object.assign(document.createElement('span'), { textContent: code ?? text('ok') });
  said.dataset.ok = String(!code);
  call.append(name === 'numbers' ? text('list') : name, ' ', said, ` ${ms} ms`);
  element('calls').prepend(call);
  while (element('calls').children.length > CALLS) element('calls').lastElementChild.remove();
}

/** Shows who can sign in. */
export function showPeople(people, user) {
  const options = people.map((person) => new Option(person.organization, person.user, false, person.user === user));
  element('people').replaceChildren(...options);
}

/** Marks the language that is spoken. */
export function showLanguage(language) {
  for (const button of document.querySelectorAll('[data-language]')) {
    button.setAttribute('aria-pressed', String(button.dataset.language === language));
  }
}
