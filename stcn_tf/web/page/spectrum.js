// @ts-check
/** Short-time spectra of a sound. */

const RANGE_DB = 70;

/**
 * @param {Float32Array} samples
 * @param {number} size of the window, a power of two
 * @param {number} columns
 * @returns {Float32Array[]} for each column size / 2 levels from 0 (quiet) to 1, low notes first
 */
export function spectrogram(samples, size, columns) {
  const window = Float32Array.from(
    { length: size },
    (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size),
  );
  const levels = [];
  let loudest = -Infinity;
  for (let column = 0; column < columns; column++) {
    const middle = ((column + 0.5) * samples.length) / columns;
    const first = Math.round(middle - size / 2);
    const re = window.map((w, i) => w * (samples[first + i] ?? 0));
    const im = new Float32Array(size);
    transform(re, im);
    const level = new Float32Array(size / 2);
    for (let i = 0; i < size / 2; i++) {
      level[i] = 10 * Math.log10(re[i] * re[i] + im[i] * im[i] + 1e-12);
      loudest = Math.max(loudest, level[i]);
    }
    levels.push(level);
  }
  return levels.map((level) => level.map((l) => Math.max(0, 1 + (l - loudest) / RANGE_DB)));
}

/** The discrete Fourier transform in place (Cooley and Tukey). @param {Float32Array} re @param {Float32Array} im */
function transform(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let size = 2; size <= n; size <<= 1) {
    for (let k = 0; k < size / 2; k++) {
      const angle = (-2 * Math.PI * k) / size;
      const [c, s] = [Math.cos(angle), Math.sin(angle)];
      for (let i = k; i < n; i += size) {
        const j = i + size / 2;
        const [a, b] = [re[j] * c - im[j] * s, re[j] * s + im[j] * c];
        re[j] = re[i] - a;
        im[j] = im[i] - b;
        re[i] += a;
        im[i] += b;
      }
    }
  }
}
