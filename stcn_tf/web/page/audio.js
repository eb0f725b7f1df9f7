// @ts-check
/** Sounds: a recording or a file is continued; waveforms and spectrograms that can be played. */

import { colourOf, shadeOf, themeColour } from "./colours.js";
import { byId, element, inFrame, sharp, view } from "./dom.js";
import { json, png, round, save, svg, wav } from "./downloads.js";
import { spectrogram } from "./spectrum.js";

const WAVE_PX = 90;
const SPECTRUM_PX = 110;
const GAP_PX = 8;
const LOWEST_RATE = 3000; // in Hz
const LONGEST_RECORDING_SECONDS = 6;
const FORMANTS = [
  [660, 80, 1],
  [1120, 100, 0.5],
  [2750, 140, 0.2],
];

/** A sound on a canvas. */
class Track {
  /** @param {number} rate @param {number} frame samples of a step @param {string} label */
  constructor(rate, frame, label) {
    this.rate = rate;
    this.frame = frame;
    /** @type {number[][]} */ this.steps = [];
    this.given = 0;
    this.made = "model";
    /** @type {number[] | null} */ this.values = null;
    this.scale = { low: 0, high: 1 };
    this.expected = 0;
    this.canvas = element("canvas", { role: "img", aria: { label } });
    this.button = element(
      "button",
      {
        type: "button",
        className: "small-button",
        disabled: true,
        on: { click: () => this.toggle() },
      },
      "Play",
    );
    this.button.setAttribute("aria-label", `Play ${label.toLowerCase()}`);
    this.width = 0;
    this.redraw = inFrame(() => this.draw());
    new ResizeObserver(() => {
      this.width = this.canvas.clientWidth;
      this.redraw();
    }).observe(this.canvas);
  }

  get samples() {
    return Float32Array.from(this.steps.flat());
  }

  /** @param {number[][]} steps @param {number} given */
  set(steps, given) {
    this.steps = steps;
    this.given = given;
    this.button.disabled = !steps.length;
    this.redraw();
  }

  draw() {
    if (!this.width) return;
    const context = sharp(this.canvas, this.width, WAVE_PX + GAP_PX + SPECTRUM_PX);
    const samples = this.samples;
    const total = Math.max(samples.length, this.expected * this.frame, 1);
    const perPixel = total / this.width;
    context.strokeStyle = themeColour("line");
    context.strokeRect(0.5, 0.5, this.width - 1, WAVE_PX - 1);
    context.strokeRect(0.5, WAVE_PX + GAP_PX + 0.5, this.width - 1, SPECTRUM_PX - 1);
    const loudest = samples.reduce((most, s) => Math.max(most, Math.abs(s)), 1e-3);
    for (let x = 0; x < Math.min(this.width, samples.length / perPixel); x++) {
      const { low, high } = extremes(samples, x * perPixel, (x + 1) * perPixel);
      const y = (/** @type {number} */ v) => (0.5 - (0.46 * v) / loudest) * WAVE_PX;
      context.fillStyle = this.colour(Math.floor((x * perPixel) / this.frame));
      context.fillRect(x, y(high), 1, Math.max(y(low) - y(high), 1));
    }
    this.drawSpectrum(context, samples, Math.floor(samples.length / perPixel));
  }

  /** @param {CanvasRenderingContext2D} context @param {Float32Array} samples @param {number} width */
  drawSpectrum(context, samples, width) {
    const columns = Math.min(width, 400);
    if (columns < 1) return;
    const size = 2 ** Math.max(4, Math.min(9, Math.round(Math.log2(0.032 * this.rate))));
    const levels = spectrogram(samples, size, columns);
    const [top, height] = [WAVE_PX + GAP_PX + 1, SPECTRUM_PX - 2];
    const band = height / (size / 2);
    levels.forEach((level, column) => {
      const x = (column * width) / columns;
      level.forEach((value, i) => {
        if (value < 0.02) return;
        context.fillStyle = colourOf(value);
        context.fillRect(x, top + height - (i + 1) * band, width / columns + 0.5, band + 0.5);
      });
    });
  }

  /** @param {number} step */
  colour(step) {
    const plain = () => themeColour(step < this.given ? "you" : this.made);
    return shadeOf(this.values, this.scale, step) ?? plain();
  }

  async toggle() {
    if (this.source) {
      this.source.stop();
      return;
    }
    const context = (Track.context ??= new AudioContext());
    await context.resume();
    // Browsers play no lower rates.
    const times = Math.ceil(LOWEST_RATE / this.rate);
    const samples = this.samples;
    const buffer = context.createBuffer(1, times * samples.length, times * this.rate);
    buffer.copyToChannel(
      Float32Array.from(
        { length: times * samples.length },
        (_, i) => samples[Math.floor(i / times)],
      ),
      0,
    );
    const source = (this.source = context.createBufferSource());
    source.buffer = buffer;
    source.connect(context.destination);
    source.onended = () => {
      this.source = null;
      this.button.textContent = "Play";
    };
    source.start();
    this.button.textContent = "Stop";
  }
}

/** @type {AudioContext | undefined} */
Track.context = undefined;

/** @param {Float32Array} samples @param {number} from @param {number} to */
function extremes(samples, from, to) {
  let [low, high] = [Infinity, -Infinity];
  for (
    let i = Math.floor(from);
    i < Math.max(to, Math.floor(from) + 1) && i < samples.length;
    i++
  ) {
    low = Math.min(low, samples[i]);
    high = Math.max(high, samples[i]);
  }
  return high >= low ? { low, high } : { low: 0, high: 0 };
}

export class AudioMedium {
  title = "Say something";
  hint =
    "Record the beginning, open a sound file, or take the example. Then let the model continue.";
  keyboard = "All of it works with the keyboard: Tab goes from control to control.";
  labels = { temperature: "Sound" };
  temperatures = { temperature: 0.9, latent_temperature: 1, binary_temperature: 1 };
  isWhole = false;

  /** @param {any} model @param {import("./medium.js").Hooks} hooks */
  constructor(model, hooks) {
    this.hooks = hooks;
    this.rate = model.modality.sample_rate_hz;
    this.frame = model.features.length;
    this.mostGiven = model.limits.max_beginning;
    const perSecond = this.rate / this.frame;
    const most = Math.min(model.limits.max_steps, Math.round(10 * perSecond));
    const least = Math.max(1, Math.round(0.25 * perSecond));
    this.length = { least, most, step: least, usual: Math.min(most, 6 * least) };
    const pace = Math.max(1, Math.round(perSecond));
    this.pace = { least: Math.max(1, Math.round(pace / 4)), most: 8 * pace, step: 1, usual: pace };
    this.pad = new Track(this.rate, this.frame, "Beginning");
    this.pad.canvas.id = "sound";
    /** @type {Track[]} */ this.tracks = [];
    this.views = byId("views");
    byId("pad").append(this.pad.canvas);
    this.addTools();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const track of [this.pad, ...this.tracks]) track.redraw();
    });
    this.formats = [
      { label: "WAV", ending: "wav", make: () => this.asWav() },
      { label: "SVG", ending: "svg", make: () => this.asSvg() },
      { label: "PNG", ending: "png", make: () => this.asPicture() },
      {
        label: "JSON",
        ending: "json",
        make: (/** @type {object} */ facts) =>
          json({
            ...facts,
            sample_rate_hz: this.rate,
            sounds: this.shown.map((t) => t.steps.flat()),
          }),
      },
    ];
  }

  /** @param {number} steps */
  lengthText(steps) {
    return `${((steps * this.frame) / this.rate).toFixed(2)} s`;
  }

  get shown() {
    return this.tracks.length ? this.tracks : [this.pad];
  }

  get isEmpty() {
    return !this.pad.steps.length;
  }

  get canUndo() {
    return !this.isEmpty;
  }

  beginning() {
    return this.pad.steps;
  }

  given() {
    return this.pad.steps;
  }

  settle() {
    this.dropMade();
  }

  undo() {
    this.clear();
  }

  clear() {
    this.dropMade();
    this.pad.set([], 0);
  }

  /** @param {number} rows @param {boolean} isAlone */
  begin(rows, isAlone) {
    this.dropMade();
    const given = isAlone ? [] : this.pad.steps;
    for (let row = 0; row < rows; row++) {
      const title = rows > 1 ? `Continuation ${row + 1}` : "Continuation";
      const track = new Track(this.rate, this.frame, title);
      track.set([...given], given.length);
      const keep = element(
        "button",
        { type: "button", className: "small-button", on: { click: () => this.hooks.keep(row) } },
        "Keep this one",
      );
      this.tracks.push(track);
      const controls = element("div", { className: "row" }, track.button, keep);
      this.views.append(view(title, title, track.canvas, controls));
    }
  }

  /** @param {number} row @param {number[]} step */
  push(row, step) {
    const track = this.tracks[row];
    track.steps.push(step);
    track.button.disabled = false;
    track.redraw();
  }

  rest() {}

  dropMade() {
    for (const track of this.tracks) track.source?.stop();
    this.tracks = [];
    this.views.replaceChildren();
    this.pad.values = null;
    this.pad.redraw();
  }

  /** @param {number} row */
  keep(row) {
    const { steps } = this.tracks[row];
    this.dropMade();
    this.pad.set(steps, steps.length);
  }

  /** @param {number} row */
  sequence(row) {
    return this.shown[row].steps;
  }

  /** @param {number} row @param {number[] | null} values @param {{low: number, high: number}} scale */
  colour(row, values, scale) {
    const track = this.shown[row];
    if (!track) return;
    track.values = values;
    track.scale = scale;
    track.redraw();
  }

  /** @param {number[][]} x */
  showReconstruction(x) {
    const track = new Track(this.rate, this.frame, "Reconstruction");
    track.made = "rebuilt";
    track.set(x, 0);
    const title = "The beginning, as the model's latents remember it";
    const shown = view("Reconstruction", title, track.canvas, track.button);
    byId("reconstruction").replaceChildren(shown);
  }

  hideReconstruction() {
    byId("reconstruction").replaceChildren();
  }

  // What a person does

  /** @param {Float32Array} samples of the records' rate */
  give(samples) {
    const frames = Math.min(Math.floor(samples.length / this.frame), this.mostGiven);
    if (!frames) {
      this.hooks.say("That is too short to go on from.", true);
      return;
    }
    this.hooks.play();
    const steps = Array.from({ length: frames }, (_, i) =>
      Array.from(samples.subarray(i * this.frame, (i + 1) * this.frame)),
    );
    this.pad.set(steps, frames);
    this.hooks.say(`${this.lengthText(frames)} given. Press Continue.`);
    this.hooks.changed();
  }

  addTools() {
    const record = element(
      "button",
      { type: "button", id: "record", on: { click: () => this.record() } },
      "Record",
    );
    this.recordButton = record;
    const file = element("input", {
      type: "file",
      id: "sound-file",
      accept: "audio/*,.wav,.flac,.mp3,.ogg",
    });
    file.addEventListener("change", async () => {
      const [chosen] = file.files;
      if (chosen) await this.open(chosen);
      file.value = "";
    });
    const example = element(
      "button",
      { type: "button", id: "example", on: { click: () => this.give(vowel(this.rate)) } },
      "Example",
    );
    byId("pad-tools").append(
      record,
      element("label", { className: "button", htmlFor: "sound-file" }, "Open a sound", file),
      example,
      this.pad.button,
    );
  }

  /** @param {Blob} blob a file of a sound */
  async open(blob) {
    try {
      const data = await blob.arrayBuffer();
      // Decoded straight to the rate of the records.
      const decoded = await new OfflineAudioContext(1, 1, decodable(this.rate)).decodeAudioData(
        data,
      );
      const frames = Math.max(1, Math.ceil(decoded.duration * this.rate));
      this.give(await resampled(decoded, frames, this.rate));
    } catch {
      this.hooks.say("That file cannot be read as a sound by this browser.", true);
    }
  }

  async record() {
    if (this.recorder) {
      this.recorder.stop();
      return;
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch {
      this.hooks.say(
        "The microphone cannot be used: allow it in the browser, or open a file.",
        true,
      );
      return;
    }
    /** @type {Blob[]} */ const parts = [];
    const recorder = (this.recorder = new MediaRecorder(stream));
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = async () => {
      this.recorder = null;
      this.recordButton.textContent = "Record";
      for (const track of stream.getTracks()) track.stop();
      await this.open(new Blob(parts, { type: recorder.mimeType }));
    };
    recorder.start();
    setTimeout(
      () => recorder.state === "recording" && recorder.stop(),
      1000 * LONGEST_RECORDING_SECONDS,
    );
    this.recordButton.textContent = "Stop recording";
    this.hooks.say("Recording …");
  }

  // Files

  /** The first sound; of several the others are saved beside it. */
  asWav() {
    const [first, ...others] = this.shown.map((track) => wav(track.samples, this.rate));
    others.forEach((blob, i) => save(`continued_${i + 2}.wav`, blob));
    return first;
  }

  asPicture() {
    const canvases = this.shown.map((track) => {
      track.draw();
      return track.canvas;
    });
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(...canvases.map((c) => c.width));
    canvas.height = canvases.reduce((sum, c) => sum + c.height + 16, -16);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.fillStyle = themeColour("paper");
    context.fillRect(0, 0, canvas.width, canvas.height);
    let top = 0;
    for (const one of canvases) {
      context.drawImage(one, 0, top);
      top += one.height + 16;
    }
    return png(canvas);
  }

  asSvg() {
    const width = 900;
    const parts = this.shown.map((track, row) => {
      const samples = track.samples;
      const loudest = samples.reduce((most, s) => Math.max(most, Math.abs(s)), 1e-3);
      const bars = [];
      for (let x = 0; x < width; x++) {
        const { low, high } = extremes(
          samples,
          (x * samples.length) / width,
          ((x + 1) * samples.length) / width,
        );
        const y = (/** @type {number} */ v) =>
          round(row * (WAVE_PX + GAP_PX) + (0.5 - (0.46 * v) / loudest) * WAVE_PX);
        const step = Math.floor((x * samples.length) / width / this.frame);
        bars.push(
          `<path stroke="${track.colour(step)}" d="M${x + 0.5} ${y(high)}V${y(low) + 0.5}"/>`,
        );
      }
      return `<g>${bars.join("")}</g>`;
    });
    return svg(width, this.shown.length * (WAVE_PX + GAP_PX), parts.join("\n"));
  }
}

/** A rate that browsers decode to. @param {number} rate */
function decodable(rate) {
  return Math.min(Math.max(rate, 8000), 96000);
}

/** @param {AudioBuffer} buffer @param {number} length @param {number} rate */
async function resampled(buffer, length, rate) {
  if (buffer.sampleRate !== rate) {
    const scale = buffer.sampleRate / rate;
    const from = buffer.getChannelData(0);
    return Float32Array.from({ length }, (_, i) => from[Math.floor(i * scale)] ?? 0);
  }
  const sum = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    buffer.getChannelData(channel).forEach((s, i) => (sum[i] += s / buffer.numberOfChannels));
  }
  return sum;
}

/** A spoken “a” of a quarter of a second: pulses through resonances. @param {number} rate */
function vowel(rate) {
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
