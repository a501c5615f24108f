// Draws a code, whichever form the platform sent it in, and shows how long it is still good for.

import { generate } from './lib/lean-qr.mjs';

/** A code is good for so long. */
const LIFE_MS = 25_000;

/** Shows the code in one of the two elements: `format` says whether it is a picture, or a pairing text that is still to be drawn. */
export function draw(qr, format, canvas, image) {
  canvas.hidden = format === 'image';
  image.hidden = format !== 'image';
  if (format !== 'image') generate(qr).toCanvas(canvas, { pad: 2 });
  else image.src = qr.startsWith('data:') ? qr : `data:image/png;base64,${qr}`;
}

/** When a code ends by this machine's clock, of which the answer knows the end by another; where it does not, the code is new. */
export function endOf({ goodUntil, seenAt }, now) {
  return now + (goodUntil ? Date.parse(goodUntil) - Date.parse(seenAt) : LIFE_MS);
}

/** The share of its life that is left, and the seconds. */
export function left(end, now) {
  const ms = Math.max(0, end - now);
  return { share: Math.min(1, ms / LIFE_MS), seconds: Math.ceil(ms / 1000) };
}
