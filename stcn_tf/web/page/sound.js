// @ts-check
/** Sounds as the records hold them: of one channel, at their rate. */

// What is not of the records' rate is decoded to this one. A browser's own way down to a low rate
// takes much of the high notes.
const HIGH_RATE = 48_000;
const DECODABLE = { least: 8000, most: 96_000 }; // which every browser decodes to
const LOBES = 16; // of the low-pass, on either side
const PASS = 0.95; // of the band
const FORMANTS = [
  [660, 80, 1],
  [1120, 100, 0.5],
  [2750, 140, 0.2],
];

/**
 * The last part of a file of sound.
 * @param {ArrayBuffer} data of the file, which is gone then
 * @param {number} rate in Hz @param {number} most samples
 * @returns {Promise<{samples: Float32Array, total: number}>} and how many there are in all
 */
export async function decoded(data, rate, most) {
  const native = rateOfWav(data) || HIGH_RATE;
  const decodable = Math.min(Math.max(native, DECODABLE.least), DECODABLE.most);
  const buffer = await new OfflineAudioContext(1, 1, decodable).decodeAudioData(data);
  const total = Math.floor((buffer.length * rate) / buffer.sampleRate);
  const length = Math.min(total, most);
  const samples = resampled(mixed(buffer), buffer.sampleRate, rate, total - length, length);
  return { samples, total };
}

/** 0: it is no WAV. @param {ArrayBuffer} data */
function rateOfWav(data) {
  const view = new DataView(data);
  if (data.byteLength < 44 || view.getUint32(0) !== 0x52494646) return 0; // RIFF
  for (let at = 12; at + 16 <= data.byteLength; at += 8 + view.getUint32(at + 4, true)) {
    if (view.getUint32(at) === 0x666d7420) return view.getUint32(at + 12, true); // fmt
  }
  return 0;
}

/** The mean of all channels. @param {AudioBuffer} buffer */
function mixed(buffer) {
  const mean = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    buffer.getChannelData(channel).forEach((s, i) => (mean[i] += s / buffer.numberOfChannels));
  }
  return mean;
}

/**
 * A part of a sound at another rate: through a windowed sinc, nothing above half of the lower rate.
 * @param {Float32Array} samples @param {number} from their rate @param {number} to whole numbers, Hz
 * @param {number} first of the samples that are wanted, at the other rate @param {number} length
 */
export function resampled(samples, from, to, first, length) {
  if (from === to) return samples.slice(first, first + length);
  const cutoff = PASS * Math.min(1, to / from);
  const half = Math.ceil(LOBES / cutoff);
  /** @type {Map<number, Float32Array>} for each place between two samples */
  const filters = new Map();
  const filterAt = (/** @type {number} */ phase) => {
    const taps = Float32Array.from({ length: 2 * half }, (_, i) => {
      const t = i - half + 1 - phase / to;
      const angle = Math.PI * cutoff * t;
      const sinc = angle ? Math.sin(angle) / angle : 1;
      return Math.abs(t) < half ? sinc * (0.5 + 0.5 * Math.cos((Math.PI * t) / half)) : 0;
    });
    const sum = taps.reduce((a, b) => a + b, 0);
    return taps.map((tap) => tap / sum);
  };
  return Float32Array.from({ length }, (_, n) => {
    const place = (first + n) * from;
    const phase = place % to;
    let taps = filters.get(phase);
    if (!taps) filters.set(phase, (taps = filterAt(phase)));
    const start = Math.floor(place / to) - half + 1;
    let sum = 0;
    const end = Math.min(taps.length, samples.length - start);
    for (let i = Math.max(0, -start); i < end; i++) sum += taps[i] * samples[start + i];
    return sum;
  });
}

/** A spoken “a” of a quarter of a second: pulses through resonances. @param {number} rate */
export function vowel(rate) {
  const length = Math.round(0.25 * rate);
  const sound = new Float32Array(length);
  const period = Math.round(rate / 120);
  for (const [frequency, width, gain] of FORMANTS) {
    if (frequency > 0.45 * rate) continue;
    const r = Math.exp((-Math.PI * width) / rate);
    const [a, b] = [2 * r * Math.cos((2 * Math.PI * frequency) / rate), -r * r];
    let [y1, y2] = [0, 0];
    for (let i = 0; i < length; i++) {
      const y = (i % period === 0 ? gain * (1 - r) : 0) + a * y1 + b * y2;
      [y1, y2] = [y, y1];
      sound[i] += y;
    }
  }
  const loudest = sound.reduce((most, s) => Math.max(most, Math.abs(s)), 1e-9);
  return sound.map(
    (s, i) => ((0.3 * s) / loudest) * Math.sin(Math.PI * Math.min((i + 1) / length, 1)) ** 0.3,
  );
}

/** The microphone, for a while. */
export class Recording {
  /** @param {(sound: Blob | null) => void} done with what was recorded; null: it was given up */
  constructor(done) {
    this.done = done;
    this.isOver = false;
  }

  /** Begins, once the person allows it. @param {number} seconds at most */
  async start(seconds) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    if (this.isOver) {
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    /** @type {Blob[]} */ const parts = [];
    const recorder = (this.recorder = new MediaRecorder(stream));
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      clearTimeout(timer);
      for (const track of stream.getTracks()) track.stop();
      if (!this.isOver) this.end(new Blob(parts, { type: recorder.mimeType }));
    };
    recorder.start();
    const timer = setTimeout(() => this.stop(), 1000 * seconds);
  }

  stop() {
    if (this.recorder?.state === "recording") this.recorder.stop();
  }

  cancel() {
    if (this.isOver) return;
    this.end(null);
    this.stop();
  }

  /** @param {Blob | null} sound */
  end(sound) {
    this.isOver = true;
    this.done(sound);
  }
}
