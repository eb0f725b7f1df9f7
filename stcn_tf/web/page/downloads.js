// @ts-check
/** Files that the page makes: saved by the browser, never sent anywhere. */

import { themeColour } from "./colours.js";

/** @param {string} name @param {Blob} blob */
export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** @param {unknown} content */
export function json(content) {
  return new Blob([JSON.stringify(content)], { type: "application/json" });
}

/** @param {HTMLCanvasElement} canvas @returns {Promise<Blob>} */
export function png(canvas) {
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture could be made")))),
  );
}

/** On paper, of which the colours are. @param {number} width @param {number} height @param {string} content */
export function svg(width, height, content) {
  const paper = `<rect width="100%" height="100%" fill="${themeColour("paper")}"/>`;
  const size = `width="${round(width)}" height="${round(height)}" viewBox="0 0 ${round(width)} ${round(height)}"`;
  const text = `<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" ${size}>\n${paper}\n${content}\n</svg>\n`;
  return new Blob([text], { type: "image/svg+xml" });
}

/**
 * InkML of a line of handwriting, which a document of it is one of; y grows downwards.
 * @param {number[][][]} strokes of points [x, y]
 */
export function inkml(strokes) {
  const traces = strokes.map(
    (points) => ` <trace>${points.map((p) => p.map(round).join(" ")).join(", ")}</trace>`,
  );
  const text = `<?xml version="1.0" encoding="UTF-8"?>\n<ink xmlns="http://www.w3.org/2003/InkML">\n${traces.join("\n")}\n</ink>\n`;
  return new Blob([text], { type: "application/inkml+xml" });
}

/**
 * A sound of 16 bits.
 * @param {Float32Array} samples full scale is 1  @param {number} rate in Hz
 */
export function wav(samples, rate) {
  const data = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const word = (/** @type {number} */ at, /** @type {string} */ text) => {
    [...text].forEach((c, i) => data.setUint8(at + i, c.charCodeAt(0)));
  };
  word(0, "RIFF");
  data.setUint32(4, 36 + 2 * samples.length, true);
  word(8, "WAVEfmt ");
  data.setUint32(16, 16, true);
  data.setUint16(20, 1, true);
  data.setUint16(22, 1, true);
  data.setUint32(24, rate, true);
  data.setUint32(28, 2 * rate, true);
  data.setUint16(32, 2, true);
  data.setUint16(34, 16, true);
  word(36, "data");
  data.setUint32(40, 2 * samples.length, true);
  samples.forEach((s, i) => {
    data.setInt16(44 + 2 * i, Math.round(32767 * Math.min(Math.max(s, -1), 1)), true);
  });
  return new Blob([data], { type: "audio/wav" });
}

/** @param {number} value */
export function round(value) {
  return Math.round(value * 1000) / 1000;
}
