// Draws a code, whichever form the platform sent it in, and shows how long it is still good for.

import { generate } from './lib/lean-qr.mjs';

/** WhatsApp shows a new code after about so long. */
const LIFE_MS = 20_000;

/** How a PNG begins in base64. */
const PNG = 'iVBORw0KGgo';

/** The address of a picture, or nothing for a pairing text that is still to be drawn. */
export function pictureOf(qr) {
  if (qr.startsWith('data:image/')) return qr;
  return qr.startsWith(PNG) ? `data:image/png;base64,${qr}` : null;
}

/** Shows the code in one of the two elements. */
export function draw(qr, canvas, image) {
  const picture = pictureOf(qr);
  canvas.hidden = picture !== null;
  image.hidden = picture === null;
  if (picture) image.src = picture;
  else generate(qr).toCanvas(canvas, { pad: 2 });
}

/** When a code ends that was first seen at `seenAt`; from now, where that cannot be so by this machine's clock. */
export function endOf(seenAt, now) {
  const age = now - Date.parse(seenAt);
  return now + LIFE_MS - (age >= 0 && age < LIFE_MS ? age : 0);
}

/** The share of its life that is left, and the seconds. */
export function left(end, now) {
  const ms = Math.max(0, end - now);
  return { share: Math.min(1, ms / LIFE_MS), seconds: Math.ceil(ms / 1000) };
}
