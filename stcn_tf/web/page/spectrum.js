// @ts-check
/** Short-time spectra of a sound that grows. */

const RANGE_DB = 70;
const QUIETEST = 1e-3; // amplitude of a tone that is the loudest of a sound that is all but silent

export class Spectrogram {
  /** @param {number} size of the window, a power of two */
  constructor(size) {
    this.size = size;
    this.hop = size / 2; // samples from one column to the next
    /** @type {Float32Array[]} of each column size / 2 levels in dB, low notes first */
    this.columns = [];
    this.loudest = 20 * Math.log10((QUIETEST * size) / 4);
    this.whole = 0; // columns whose window is full
    this.window = Float32Array.from(
      { length: size },
      (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size),
    );
    this.turns = Array.from({ length: size / 2 }, (_, i) => {
      const angle = (-2 * Math.PI * i) / size;
      return [Math.cos(angle), Math.sin(angle)];
    });
  }

  /** Computes the columns of what is new. @param {Float32Array} samples all of the sound so far */
  update(samples) {
    const { size, hop } = this;
    const count = Math.ceil(samples.length / hop);
    this.columns.length = this.whole;
    for (let column = this.whole; column < count; column++) {
      const first = Math.round((column + 0.5) * hop - size / 2);
      const level = this.levelsAt(samples, first);
      this.columns.push(level);
      this.loudest = level.reduce((most, l) => Math.max(most, l), this.loudest);
      if (first + size <= samples.length) this.whole = column + 1;
    }
  }

  /** @param {number} column @returns {Float32Array} levels from 0 (quiet) to 1 */
  shares(column) {
    return this.columns[column].map((l) =>
      Math.min(Math.max(0, 1 + (l - this.loudest) / RANGE_DB), 1),
    );
  }

  /** @param {Float32Array} samples @param {number} first */
  levelsAt(samples, first) {
    const re = this.window.map((w, i) => w * (samples[first + i] ?? 0));
    const im = new Float32Array(this.size);
    this.transform(re, im);
    return re
      .subarray(0, this.size / 2)
      .map((r, i) => 10 * Math.log10(r * r + im[i] * im[i] + 1e-12));
  }

  /** The discrete Fourier transform in place (Cooley and Tukey). @param {Float32Array} re @param {Float32Array} im */
  transform(re, im) {
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
        const [c, s] = this.turns[(k * n) / size];
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
}
