// @ts-check
/** From numbers to colours, and the colours of the sheet for canvases. */

// Viridis, cut to what can be read on light and dark paper.
const STOPS = [
  [92, 74, 170],
  [49, 104, 142],
  [33, 145, 140],
  [94, 201, 98],
  [240, 200, 35],
];

/** @param {number} share 0 to 1 @returns {string} */
export function colourOf(share) {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  const part = at - low;
  const channels = STOPS[low].map((c, i) => Math.round(c + part * (STOPS[low + 1][i] - c)));
  return `rgb(${channels.join(" ")})`;
}

/**
 * The colour of one of several values.
 * @param {number[] | null} values null: there are none
 * @param {{low: number, high: number}} scale @param {number} i
 * @returns {string | undefined}
 */
export function shadeOf(values, { low, high }, i) {
  const value = values?.[i];
  return value === undefined ? undefined : colourOf((value - low) / (high - low));
}

/** The same as a CSS gradient, for a legend. */
export const GRADIENT = `linear-gradient(to right, ${STOPS.map((c) => `rgb(${c.join(" ")})`).join(", ")})`;

/** @param {string} name of a colour in the sheet, without -- @returns {string} */
export function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/**
 * Where a scale of colours begins and ends: nearly all values are within.
 * @param {number[]} values
 * @returns {{low: number, high: number}}
 */
export function scaleOf(values) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  const at = (/** @type {number} */ q) => sorted[Math.floor(q * (sorted.length - 1))] ?? 0;
  const low = Math.min(at(0.02), at(0.5) >= 0 && at(0) >= 0 ? 0 : Infinity);
  const high = at(0.95);
  return { low, high: high > low ? high : low + 1e-6 };
}

/**
 * A ramp of 256 colours through some of the sheet's.
 * @param {...string} names
 * @returns {{name: string, colours: Uint32Array}} as pixels of a picture; another name is another ramp
 */
export function rampOf(...names) {
  const stops = names.map(themeColour);
  const name = stops.join(" ");
  if (ramp?.name === name) return ramp;
  const rgb = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  const pixels = new Uint8ClampedArray(4 * 256);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    const channels = rgb[low].map((c, k) => c + (at - low) * (rgb[low + 1][k] - c));
    pixels.set([...channels, 255], 4 * i);
  }
  return (ramp = { name, colours: new Uint32Array(pixels.buffer) });
}

/** @type {{name: string, colours: Uint32Array} | undefined} the last one */
let ramp;
