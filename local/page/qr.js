// Draws a code in the format that the platform sent.

import { generate } from './lib/lean-qr.mjs';

/** The margin in modules that a camera needs around a code. */
const QUIET_ZONE = 4;

/** Draws the code in one of the two elements: `format` says whether it is a picture, or a pairing text that is still to be drawn. */
export function draw(qr, format, canvas, image) {
  canvas.hidden = format === 'image';
  image.hidden = format !== 'image';
  if (format === 'image') image.src = qr.startsWith('data:') ? qr : `data:image/png;base64,${qr}`;
  // Always white, even if the system changes the page's colors.
  else generate(qr).toCanvas(canvas, { pad: QUIET_ZONE, on: [0, 0, 0, 255], off: [255, 255, 255, 255] });
}
