// @ts-check
/** A sound on a canvas: its wave, its spectrum, and a button that plays it. */

import { rampOf, shadeOf, themeColour } from "./colours.js";
import { element, inFrame, sharp } from "./dom.js";
import { round } from "./downloads.js";
import { Spectrogram } from "./spectrum.js";

const WAVE_PX = 90;
const AXIS_PX = 16;
const SPECTRUM_PX = 110;
const HEIGHT_PX = WAVE_PX + AXIS_PX + SPECTRUM_PX;
const FEWEST_PX = 70; // from one mark of the axis to the next
const WINDOW_SECONDS = 0.032;
const LOWEST_RATE = 3000; // in Hz, that browsers play

export class Track {
  /** @type {AudioContext | undefined} */ static context;
  /** @type {Track | null} of all at most one is heard */ static playing = null;

  /** @param {number} rate @param {number} frame samples of a step @param {string} label */
  constructor(rate, frame, label) {
    this.rate = rate;
    this.frame = frame;
    this.label = label.toLowerCase();
    this.buffer = new Float32Array(frame); // which grows
    this.count = 0; // samples in it
    this.given = 0; // steps
    this.expected = 0; // steps, of which the axis is long enough
    this.made = "model";
    /** @type {number[] | null} */ this.values = null;
    this.scale = { low: 0, high: 1 };
    this.windowSize = 2 ** Math.max(4, Math.min(9, Math.round(Math.log2(WINDOW_SECONDS * rate))));
    this.spectrum = new Spectrogram(this.windowSize);
    this.picture = document.createElement("canvas"); // of the spectrum, a pixel for each value
    this.pictured = "";
    this.canvas = element("canvas", { className: "sound", role: "img", aria: { label } });
    this.button = element("button", {
      type: "button",
      className: "small-button",
      disabled: true,
      on: { click: () => (this.mark ? this.stop() : this.play()) },
    });
    /** @type {object | null} of what is heard now */ this.mark = null;
    /** @type {number | undefined} when that began */ this.startedAt = undefined;
    this.name("Play");
    this.width = 0;
    this.redraw = inFrame(() => this.draw());
    new ResizeObserver(() => {
      this.width = this.canvas.clientWidth;
      this.redraw();
    }).observe(this.canvas);
  }

  get samples() {
    return this.buffer.subarray(0, this.count);
  }

  get numSteps() {
    return this.count / this.frame;
  }

  /** @returns {number[][]} */
  get steps() {
    return Array.from({ length: this.numSteps }, (_, i) =>
      Array.from(this.buffer.subarray(i * this.frame, (i + 1) * this.frame)),
    );
  }

  /** @param {Float32Array} samples whole steps @param {number} given steps */
  set(samples, given) {
    this.stop();
    this.buffer = Float32Array.from(samples.length ? samples : { length: this.frame });
    this.count = samples.length;
    this.given = given;
    this.expected = 0;
    this.spectrum = new Spectrogram(this.windowSize);
    this.button.disabled = !this.count;
    this.redraw();
  }

  /** @param {number[]} step */
  push(step) {
    if (this.count + step.length > this.buffer.length) {
      const larger = new Float32Array(2 * this.buffer.length);
      larger.set(this.samples);
      this.buffer = larger;
    }
    this.buffer.set(step, this.count);
    this.count += step.length;
    this.button.disabled = false;
    this.redraw();
  }

  // To be seen

  draw() {
    if (!this.width) return;
    const context = sharp(this.canvas, this.width, HEIGHT_PX);
    const total = Math.max(this.count, this.expected * this.frame, 1);
    context.strokeStyle = themeColour("line");
    context.strokeRect(0.5, 0.5, this.width - 1, WAVE_PX - 1);
    context.strokeRect(0.5, WAVE_PX + AXIS_PX + 0.5, this.width - 1, SPECTRUM_PX - 1);
    this.drawAxis(context, total / this.rate);
    for (const { x, low, high, colour } of this.bars(this.width, total)) {
      context.fillStyle = colour;
      context.fillRect(x, high, 1, Math.max(low - high, 1));
    }
    this.drawSpectrum(context, total);
    if (this.startedAt !== undefined && Track.context) {
      const heard = (Track.context.currentTime - this.startedAt) * this.rate;
      context.fillStyle = themeColour("accent");
      context.fillRect((Math.min(heard, total) / total) * this.width - 1, 0, 2, HEIGHT_PX);
    }
  }

  /**
   * The wave as bars, a pixel wide each.
   * @param {number} width @param {number} total samples that are as wide
   */
  *bars(width, total) {
    const { samples } = this;
    const loudest = samples.reduce((most, s) => Math.max(most, Math.abs(s)), 1e-3);
    const y = (/** @type {number} */ v) => (0.5 - (0.46 * v) / loudest) * WAVE_PX;
    const [you, made] = [themeColour("you"), themeColour(this.made)];
    const perPixel = total / width;
    for (let x = 0; x < Math.min(width, samples.length / perPixel); x++) {
      const { low, high } = extremes(samples, x * perPixel, (x + 1) * perPixel);
      const step = Math.floor((x * perPixel) / this.frame);
      const plain = step < this.given ? you : made;
      const colour = shadeOf(this.values, this.scale, step) ?? plain;
      yield { x, low: y(low), high: y(high), colour };
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {number} seconds */
  drawAxis(context, seconds) {
    const atLeast = (seconds * FEWEST_PX) / this.width;
    const power = 10 ** Math.floor(Math.log10(atLeast));
    const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= atLeast) ?? 10 * power;
    const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    context.fillStyle = themeColour("quiet");
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (let n = 1; n * step < seconds; n++) {
      const x = (n * step * this.width) / seconds;
      context.fillRect(Math.round(x), WAVE_PX, 1, 4);
      const text = `${(n * step).toFixed(places)} s`;
      if (x + 30 < this.width) context.fillText(text, x + 4, WAVE_PX + AXIS_PX / 2 + 1);
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {number} total samples that are as wide */
  drawSpectrum(context, total) {
    const { spectrum, picture } = this;
    spectrum.update(this.samples);
    const [width, height] = [spectrum.columns.length, this.windowSize / 2];
    if (!width) return;
    const ramp = rampOf("paper", "rebuilt", "text");
    const state = `${this.count} ${ramp.name}`;
    if (state !== this.pictured) {
      this.pictured = state;
      [picture.width, picture.height] = [width, height];
      const image = new ImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      for (let column = 0; column < width; column++) {
        spectrum.shares(column).forEach((share, i) => {
          pixels[(height - 1 - i) * width + column] = ramp.colours[Math.round(255 * share)];
        });
      }
      picture.getContext("2d")?.putImageData(image, 0, 0);
    }
    const scale = this.width / total;
    context.save();
    context.beginPath();
    context.rect(1, WAVE_PX + AXIS_PX + 1, this.count * scale - 2, SPECTRUM_PX - 2);
    context.clip();
    const shown = width * spectrum.hop * scale;
    context.drawImage(picture, 0, WAVE_PX + AXIS_PX + 1, shown, SPECTRUM_PX - 2);
    context.restore();
  }

  /** The wave, as a part of a file. @param {number} width @param {number} top */
  svg(width, top) {
    const bars = Array.from(
      this.bars(width, Math.max(this.count, 1)),
      ({ x, low, high, colour }) =>
        `<path stroke="${colour}" d="M${x + 0.5} ${round(top + high)}V${round(top + low + 0.5)}"/>`,
    );
    return `<g>${bars.join("")}</g>`;
  }

  // To be heard

  /** @param {"Play" | "Stop"} verb */
  name(verb) {
    this.button.textContent = verb;
    this.button.setAttribute("aria-label", `${verb} ${this.label}`);
  }

  async play() {
    Track.playing?.stop();
    Track.playing = this;
    const mark = (this.mark = {});
    this.name("Stop");
    const context = (Track.context ??= new AudioContext());
    await context.resume();
    if (this.mark !== mark) return;
    const times = Math.ceil(LOWEST_RATE / this.rate);
    const { samples } = this;
    const buffer = context.createBuffer(1, times * samples.length, times * this.rate);
    const heard = Float32Array.from(
      { length: times * samples.length },
      (_, i) => samples[Math.floor(i / times)],
    );
    buffer.copyToChannel(heard, 0);
    const source = (this.source = context.createBufferSource());
    source.buffer = buffer;
    source.connect(context.destination);
    source.onended = () => this.mark === mark && this.stop();
    source.start();
    this.startedAt = context.currentTime;
    const follow = () => {
      if (this.mark !== mark) return;
      this.draw();
      requestAnimationFrame(follow);
    };
    follow();
  }

  stop() {
    if (!this.mark) return;
    this.mark = null;
    Track.playing = null;
    this.source?.stop();
    this.source = this.startedAt = undefined;
    this.name("Play");
    this.redraw();
  }
}

/** @param {Float32Array} samples @param {number} from @param {number} to */
function extremes(samples, from, to) {
  let [low, high] = [Infinity, -Infinity];
  const first = Math.floor(from);
  for (let i = first; i < Math.max(to, first + 1) && i < samples.length; i++) {
    low = Math.min(low, samples[i]);
    high = Math.max(high, samples[i]);
  }
  return high >= low ? { low, high } : { low: 0, high: 0 };
}
