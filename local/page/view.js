// Puts a card, the list and the last calls into the document. The elements stay, so that focus stays where it is.

import { stateOf } from './card.js';
import * as qr from './qr.js';
import { text, time } from './text.js';

const element = (id) => document.getElementById(id);

/** The code on the screen, and when it ends. */
let code = { qr: null, end: 0 };

/** Shows a card. What has not changed is not touched: a screen reader would say it again. */
export function showCard(card) {
  element('card').dataset.kind = card.kind;
  say('title', text(card.title));
  say('text', [card.said, card.text && text(card.text)].filter(Boolean).join(' '));
  say('note', card.note ?? '');
  say('last', card.known ? lastKnown(card.known) : '');
  const act = element('act');
  act.hidden = !card.act;
  if (card.act) {
    act.dataset.act = card.act;
    say('act', text(card.act));
  }
  element('check').hidden = !card.check;
  element('scan').hidden = !card.qr;
  showCode(card);
}

function say(id, words) {
  const place = element(id);
  if (place.textContent !== words) place.textContent = words;
  place.hidden = words === '';
}

function lastKnown({ status, seenAt }) {
  const state = text(`state-${status}`);
  return seenAt ? text('lastKnownAt', { state, time: time(seenAt) }) : text('lastKnown', { state });
}

function showCode(card) {
  if ((card.qr ?? null) !== code.qr) {
    code = { qr: card.qr ?? null, end: card.qr ? qr.endOf(card, Date.now()) : 0 };
    if (code.qr) qr.draw(code.qr, card.format, element('drawn'), element('picture'));
  }
  tick();
}

/** Shows how long the code is still good for. */
export function tick() {
  if (!code.qr) return;
  const { share, seconds } = qr.left(code.end, Date.now());
  element('ring').style.setProperty('--left', share);
  say('left', seconds > 0 ? text('left', { seconds }) : text('renewing'));
}

/** Shows the numbers, each a button that brings it onto the card; `isShown` tells which is there now. */
export function showNumbers(numbers, isShown) {
  element('no-numbers').hidden = numbers === null || numbers.length > 0;
  element('add').hidden = !numbers?.length;
  const list = element('numbers');
  const rows = (numbers ?? []).map((number, index) => {
    const row = list.children[index] ?? emptyRow();
    fillRow(row, number, isShown(number));
    return row;
  });
  list.replaceChildren(...rows);
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

function fillRow(row, { id, name, session, is_primary, created_at, answer }, isShown) {
  const button = row.firstElementChild;
  const state = stateOf(answer);
  button.dataset.number = id;
  button.ariaCurrent = String(isShown);
  const put = (part, words) => {
    const place = button.querySelector(`.${part}`);
    if (place.textContent !== words) place.textContent = words;
    place.hidden = words === '';
  };
  put('name', session ?? name);
  put('badge', is_primary ? text('primary') : '');
  put('pill', text(state in SAID ? state : `state-${state}`));
  button.querySelector('.pill').dataset.state = state;
  const about = [
    text('added', { time: time(created_at) }),
    answer?.stale && answer.seen_at && text('seen', { time: time(answer.seen_at) }),
    answer?.status === 'connected' && text(answer.webhook),
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
    button.ariaPressed = String(button.dataset.language === language);
  }
}
