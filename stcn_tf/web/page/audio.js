// @ts-check
/** Sounds: a recording or a file is continued. */

import { themeColour } from "./colours.js";
import { byId, element, view } from "./dom.js";
import { json, png, svg, wav } from "./downloads.js";
import { Recording, decoded, vowel } from "./sound.js";
import { Track } from "./track.js";

const LONGEST_RECORDING_SECONDS = 6;
const MOST_UNDONE = 20; // sounds
const SVG_PX = { width: 900, height: 98 };

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
    /** @type {Float32Array[]} what was given before, the last one at the end */ this.before = [];
    /** @type {Track[]} */ this.tracks = [];
    /** @type {Track | null} */ this.rebuilt = null;
    /** @type {Recording | null} */ this.recording = null;
    /** @type {object | null} the file that is being read */ this.opening = null;
    this.views = byId("views");
    byId("pad").append(this.pad.canvas);
    this.addTools();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const track of [this.pad, ...this.tracks, this.rebuilt]) track?.redraw();
    });
    this.formats = [
      {
        label: "WAV",
        ending: "wav",
        make: () => this.shown.map((track) => wav(track.samples, this.rate)),
      },
      { label: "SVG", ending: "svg", make: () => this.asSvg() },
      { label: "PNG", ending: "png", make: () => this.asPicture() },
      {
        label: "JSON",
        ending: "json",
        make: (/** @type {object} */ facts) =>
          json({
            ...facts,
            sample_rate_hz: this.rate,
            given_samples: this.shown[0].given * this.frame,
            sounds: this.shown.map((track) => Array.from(track.samples)),
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
    return !this.pad.count;
  }

  get canBegin() {
    return !this.isEmpty;
  }

  get canUndo() {
    return this.before.length > 0;
  }

  beginning() {
    return this.pad.steps;
  }

  given() {
    return this.pad.steps;
  }

  settle() {
    const hadSome = this.tracks.length > 0;
    this.dropMade();
    return hadSome ? "The continuation is gone." : "";
  }

  undo() {
    this.hold(this.before.pop() ?? new Float32Array(0));
    return this.isEmpty ? "The sound is gone." : "The sound before it is back.";
  }

  clear() {
    this.dropMade();
    this.remember();
    this.hold(new Float32Array(0));
  }

  remember() {
    this.before.push(this.pad.samples.slice());
    if (this.before.length > MOST_UNDONE) this.before.shift();
  }

  /** Makes a sound the beginning; another one that would come later does not. @param {Float32Array} samples */
  hold(samples) {
    this.giveUp();
    this.pad.set(samples, samples.length / this.frame);
  }

  /** Waits for no other beginning. */
  giveUp() {
    this.opening = null;
    this.recording?.cancel();
  }

  /** @param {number} rows @param {boolean} isAlone */
  begin(rows, isAlone) {
    this.giveUp();
    this.dropMade();
    const given = isAlone ? new Float32Array(0) : this.pad.samples;
    for (let row = 0; row < rows; row++) {
      const title = rows > 1 ? `Continuation ${row + 1}` : "Continuation";
      const track = new Track(this.rate, this.frame, title);
      track.set(given, given.length / this.frame);
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

  /** @param {number} steps */
  expect(steps) {
    for (const track of this.tracks) track.expected = track.given + steps;
  }

  /** @param {number} row @param {number[]} step */
  push(row, step) {
    this.tracks[row].push(step);
  }

  rest() {}

  dropMade() {
    for (const track of this.tracks) track.stop();
    this.tracks = [];
    this.views.replaceChildren();
    this.pad.values = null;
    this.pad.redraw();
  }

  /** @param {number} row */
  keep(row) {
    const { samples } = this.tracks[row];
    this.dropMade();
    this.remember();
    this.hold(samples);
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
    this.hideReconstruction();
    const track = (this.rebuilt = new Track(this.rate, this.frame, "Reconstruction"));
    track.made = "rebuilt";
    track.set(Float32Array.from(x.flat()), 0);
    const title = "The beginning, as the model's latents remember it";
    const shown = view("Reconstruction", title, track.canvas, track.button);
    byId("reconstruction").replaceChildren(shown);
  }

  hideReconstruction() {
    this.rebuilt?.stop();
    this.rebuilt = null;
    byId("reconstruction").replaceChildren();
  }

  // What a person does

  /** @param {Float32Array} samples of the records' rate @param {number} total of which they are the last */
  give(samples, total) {
    const frames = Math.floor(samples.length / this.frame);
    if (!frames) return this.hooks.say("That is too short to go on from.", true);
    if (!samples.every(Number.isFinite)) {
      return this.hooks.say("That sound has values that are no numbers.", true);
    }
    this.hooks.play();
    this.remember();
    const last = samples.subarray(samples.length - frames * this.frame);
    this.hold(last.map((s) => Math.min(Math.max(s, -1), 1)));
    const isCut = total - samples.length >= this.frame;
    const part = isCut ? `The last ${this.lengthText(frames)} of ` : "";
    this.hooks.say(`${part}${this.lengthText(total / this.frame)} given. Press Continue.`);
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
    const take = () => {
      const sound = vowel(this.rate);
      this.give(sound, sound.length);
    };
    const example = element(
      "button",
      { type: "button", id: "example", on: { click: take } },
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
    const ticket = (this.opening = {});
    let sound;
    try {
      sound = await decoded(await blob.arrayBuffer(), this.rate, this.mostGiven * this.frame);
    } catch {
      sound = null;
    }
    if (this.opening !== ticket) return; // something else was given meanwhile
    this.opening = null;
    if (sound) this.give(sound.samples, sound.total);
    else this.hooks.say("That file cannot be read as a sound by this browser.", true);
  }

  async record() {
    if (this.recording) return this.recording.stop();
    if (!navigator.mediaDevices) {
      const why = "Browsers allow the microphone to this machine's own pages and to https alone";
      return this.hooks.say(`${why}: open a file.`, true);
    }
    const recording = (this.recording = new Recording((sound) => {
      this.recording = null;
      this.recordButton.textContent = "Record";
      if (sound) this.open(sound);
    }));
    this.hooks.say("Waiting for the microphone …");
    try {
      await recording.start(LONGEST_RECORDING_SECONDS);
    } catch {
      if (recording.isOver) return;
      recording.cancel();
      this.hooks.say(
        "The microphone cannot be used: allow it in the browser, or open a file.",
        true,
      );
      return;
    }
    if (recording.isOver) return;
    this.recordButton.textContent = "Stop recording";
    this.hooks.say("Recording …");
  }

  // Files

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
    const { width, height } = SVG_PX;
    const parts = this.shown.map((track, row) => track.svg(width, row * height));
    return svg(width, this.shown.length * height, parts.join("\n"));
  }
}
