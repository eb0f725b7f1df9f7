// @ts-check
/** Images: the upper rows are drawn, the model completes the rest, pixel by pixel. */

import { shadeOf, themeColour } from "./colours.js";
import { byId, element, inFrame, view } from "./dom.js";
import { json, png, svg } from "./downloads.js";
import { ARROWS, followPointer } from "./pointer.js";

const EXAMPLES = [
  [
    [0.3, 0.3],
    [0.5, 0.16],
    [0.7, 0.3],
    [0.6, 0.5],
    [0.35, 0.78],
    [0.7, 0.78],
  ], // 2
  [
    [0.3, 0.18],
    [0.7, 0.18],
    [0.55, 0.5],
    [0.45, 0.82],
  ], // 7
  [
    [0.5, 0.15],
    [0.32, 0.32],
    [0.32, 0.65],
    [0.5, 0.82],
    [0.68, 0.65],
    [0.68, 0.32],
    [0.5, 0.15],
  ], // 0
];
const BRUSH = 1.15; // pixels of the image
const MOST_UNDONE = 100; // lines
const ZOOM = 12; // pixels of a canvas for each of the image

/** An image on a canvas. */
class Picture {
  /** @param {number} width @param {number} height @param {string} label */
  constructor(width, height, label) {
    this.width = width;
    this.height = height;
    /** @type {number[]} row by row */ this.pixels = [];
    this.given = 0;
    this.made = "model";
    /** @type {number[] | null} */ this.values = null;
    this.scale = { low: 0, high: 1 };
    this.canvas = element("canvas", { className: "pixels", role: "img", aria: { label } });
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    /** @type {number | null} pixel of the keyboard */ this.cursor = null;
    this.kept = 0; // rows, below which it is shaded; 0: none is
    this.redraw = inFrame(() => this.draw());
    this.redraw();
  }

  /** The canvas has `zoom` pixels for each of the image. @param {number} zoom @param {boolean} isBare */
  draw(zoom = ZOOM, isBare = false) {
    const { canvas, width, height } = this;
    canvas.width = width * zoom;
    canvas.height = height * zoom;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.fillStyle = themeColour("paper");
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (this.kept && !isBare) {
      context.fillStyle = themeColour("guide");
      context.fillRect(0, this.kept * zoom, canvas.width, canvas.height);
    }
    for (const { x, y, size, colour } of this.squares()) {
      context.fillStyle = colour;
      context.fillRect(x * zoom, y * zoom, size * zoom, size * zoom);
    }
    if (this.cursor !== null && !isBare) {
      context.strokeStyle = themeColour("accent");
      context.lineWidth = 3;
      context.strokeRect(
        (this.cursor % width) * zoom + 1.5,
        Math.floor(this.cursor / width) * zoom + 1.5,
        zoom - 3,
        zoom - 3,
      );
    }
  }

  /** What is drawn, in pixels of the image. */
  *squares() {
    const [you, made] = [themeColour("you"), themeColour(this.made)];
    for (let i = 0; i < this.pixels.length; i++) {
      const [x, y] = [i % this.width, Math.floor(i / this.width)];
      const isOn = this.pixels[i] > 0.5;
      const shade = shadeOf(this.values, this.scale, i);
      if (shade) yield { x, y, size: 1, colour: shade };
      // Its own pixels are still seen among the colours.
      if (shade && isOn) yield { x: x + 0.25, y: y + 0.25, size: 0.5, colour: you };
      if (!shade && isOn) yield { x, y, size: 1, colour: i < this.given ? you : made };
    }
  }
}

export class ImageMedium {
  title = "Draw the upper part";
  hint = "With mouse, pen or finger. The shaded part is completed by the model.";
  keyboard =
    "Without a pointer: move to the picture; arrow keys move, the space bar turns a pixel on or off.";
  labels = { binary_temperature: "Pixels" };
  temperatures = { temperature: 1, latent_temperature: 1, binary_temperature: 1 };
  pace = { least: 20, most: 1000, step: 20, usual: 200 };
  isWhole = true;

  /** @param {any} model @param {import("./medium.js").Hooks} hooks */
  constructor(model, hooks) {
    this.hooks = hooks;
    /** @type {number} */ this.width = model.modality.width;
    /** @type {number} */ this.height = model.modality.height;
    const all = this.width * this.height;
    this.length = { least: 1, most: all, step: 1, usual: all };
    this.pad = new Picture(
      this.width,
      this.height,
      "Picture to draw on. Arrow keys move, space turns a pixel on or off.",
    );
    Object.assign(this.pad.canvas, { className: "pad pixels", tabIndex: 0, id: "picture" });
    this.pad.canvas.setAttribute("role", "application");
    /** @type {Float32Array} */ this.ink = new Float32Array(all);
    /** @type {Float32Array[]} before each line, the last one at the end */ this.before = [];
    /** Where the keyboard is. */
    this.at = Math.floor(this.height / 4) * this.width + Math.floor(this.width / 2);
    /** @type {Picture[]} */ this.pictures = [];
    this.views = byId("views");
    this.views.classList.add("tiles");
    byId("pad").append(this.pad.canvas);
    this.addTools();
    this.kept = 0;
    this.setKept(Math.floor(this.height / 2));
    this.listen();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const picture of [this.pad, ...this.pictures]) picture.redraw();
    });
    this.formats = [
      { label: "SVG", ending: "svg", make: () => this.asSvg() },
      { label: "PNG", ending: "png", make: () => png(this.asPicture()) },
      {
        label: "JSON",
        ending: "json",
        make: (/** @type {object} */ facts) =>
          json({
            ...facts,
            given_pixels: this.pictures.length ? this.pictures[0].given : this.pad.given,
            images: this.shown.map((p) => this.rowsOf(p)),
          }),
      },
    ];
  }

  /** @param {number} steps */
  lengthText(steps) {
    return `${steps} pixels`;
  }

  get shown() {
    return this.pictures.length ? this.pictures : [this.pad];
  }

  get isEmpty() {
    return !this.ink.some((v) => v > 0.5);
  }

  get canBegin() {
    return true; // many an image begins with rows of paper
  }

  get canUndo() {
    return this.before.length > 0;
  }

  beginning() {
    return Array.from(this.ink.subarray(0, this.kept * this.width), (v) => [v > 0.5 ? 1 : 0]);
  }

  given() {
    return Array.from(this.ink, (v) => [v > 0.5 ? 1 : 0]);
  }

  settle() {
    const hadSome = this.pictures.length > 0;
    this.dropMade();
    return hadSome ? "The completion is gone." : "";
  }

  undo() {
    this.ink = this.before.pop() ?? this.ink;
    this.show();
    return "The last change is taken back.";
  }

  clear() {
    this.dropMade();
    this.remember();
    this.ink.fill(0);
    this.show();
  }

  /** @param {number} rows @param {boolean} isAlone */
  begin(rows, isAlone) {
    this.dropMade();
    const given = isAlone ? [] : this.beginning().map(([v]) => v);
    for (let row = 0; row < rows; row++) {
      const title = rows > 1 ? `Completion ${row + 1}` : "Completion";
      const picture = new Picture(this.width, this.height, title);
      picture.pixels = [...given];
      picture.given = given.length;
      this.pictures.push(picture);
      this.views.append(view(title, title, picture.canvas));
    }
  }

  expect() {}

  /** @param {number} row @param {number[]} step */
  push(row, step) {
    this.pictures[row].pixels.push(step[0]);
    this.pictures[row].redraw();
  }

  rest() {}

  dropMade() {
    this.pictures = [];
    this.views.replaceChildren();
    this.pad.values = null;
    this.pad.redraw();
  }

  /** @param {number} row */
  keep(row) {
    this.remember();
    this.ink = Float32Array.from(
      { length: this.ink.length },
      (_, i) => this.pictures[row].pixels[i] ?? 0,
    );
    this.dropMade();
    this.show();
  }

  /** @param {number} row */
  sequence(row) {
    const { pixels } = this.shown[row];
    return pixels.map((v) => [v > 0.5 ? 1 : 0]);
  }

  /** @param {number} row @param {number[] | null} values @param {{low: number, high: number}} scale */
  colour(row, values, scale) {
    const picture = this.shown[row];
    if (!picture) return;
    picture.values = values;
    picture.scale = scale;
    picture.redraw();
  }

  /** @param {number[][]} x */
  showReconstruction(x) {
    const picture = new Picture(this.width, this.height, "Reconstruction");
    picture.made = "rebuilt";
    picture.pixels = x.map(([v]) => v);
    const title = "Yours, as the model's latents remember it";
    byId("reconstruction").classList.add("tiles");
    byId("reconstruction").replaceChildren(view("Reconstruction", title, picture.canvas));
  }

  hideReconstruction() {
    byId("reconstruction").replaceChildren();
  }

  // What a person does

  /** @param {number} rows that are given */
  setKept(rows) {
    this.kept = rows;
    this.pad.kept = rows;
    this.show();
  }

  show() {
    this.pad.pixels = Array.from(this.ink);
    this.pad.given = this.kept * this.width;
    this.pad.made = "quiet"; // below, where it is not given
    this.pad.redraw();
  }

  /** Puts ink on a line. @param {number[]} from in pixels @param {number[]} to @param {boolean} isOn */
  paint(from, to, isOn = true) {
    const steps = Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) * 3) + 1;
    for (let k = 0; k <= steps; k++) {
      const [x, y] = [0, 1].map((axis) => from[axis] + ((to[axis] - from[axis]) * k) / steps);
      for (
        let row = Math.max(0, Math.floor(y - BRUSH));
        row <= Math.min(this.height - 1, y + BRUSH);
        row++
      ) {
        for (
          let column = Math.max(0, Math.floor(x - BRUSH));
          column <= Math.min(this.width - 1, x + BRUSH);
          column++
        ) {
          if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= BRUSH)
            this.ink[row * this.width + column] = isOn ? 1 : 0;
        }
      }
    }
    this.show();
  }

  /** A person draws: nothing may go on meanwhile, and it can be taken back. */
  begins() {
    this.hooks.play();
    this.remember();
  }

  remember() {
    this.before.push(Float32Array.from(this.ink));
    if (this.before.length > MOST_UNDONE) this.before.shift();
  }

  listen() {
    const { canvas } = this.pad;
    /** @type {number[]} */ let last = [];
    let isOn = true;
    const pixel = (/** @type {number[]} */ at) => {
      const box = canvas.getBoundingClientRect();
      return [(at[0] / box.width) * this.width, (at[1] / box.height) * this.height];
    };
    followPointer(canvas, {
      down: (at, isEraser) => {
        this.begins();
        this.pad.cursor = null;
        isOn = !isEraser && !this.erase.checked;
        last = pixel(at);
        this.paint(last, last, isOn);
      },
      move: (points) => {
        for (const next of points.map(pixel)) {
          this.paint(last, next, isOn);
          last = next;
        }
      },
      up: () => this.hooks.changed(),
      drop: () => this.undo(),
    });
    canvas.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.onKey(event));
    canvas.addEventListener("focus", () => {
      if (!canvas.matches(":focus-visible")) return;
      this.pad.cursor = this.at;
      this.pad.redraw();
    });
    canvas.addEventListener("blur", () => {
      this.pad.cursor = null;
      this.pad.redraw();
    });
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const move = ARROWS[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    if (move) {
      const [x, y] = [this.at % this.width, Math.floor(this.at / this.width)];
      const column = Math.min(Math.max(x + move[0], 0), this.width - 1);
      const row = Math.min(Math.max(y + move[1], 0), this.height - 1);
      this.at = row * this.width + column;
      this.tell();
    } else {
      this.begins();
      this.ink[this.at] = this.ink[this.at] > 0.5 ? 0 : 1;
      this.show();
      this.hooks.changed();
      this.tell();
    }
    this.pad.cursor = this.at;
    this.pad.redraw();
  }

  /** Says where the keyboard is. */
  tell() {
    const [row, column] = [Math.floor(this.at / this.width) + 1, (this.at % this.width) + 1];
    this.hooks.say(`Row ${row}, column ${column}: ${this.ink[this.at] > 0.5 ? "on" : "off"}.`);
  }

  addTools() {
    let next = 0;
    this.erase = element("input", { type: "checkbox", id: "erase" });
    const told = element("output", { htmlFor: "kept" });
    const tell = () => {
      told.textContent = kept.value;
      kept.setAttribute("aria-valuetext", `${kept.value} of ${this.height} rows`);
    };
    const kept = element("input", {
      type: "range",
      id: "kept",
      min: 1,
      max: this.height - 1,
      value: Math.floor(this.height / 2),
      on: {
        input: () => {
          this.hooks.play();
          tell();
          this.setKept(Number(kept.value));
          this.hooks.changed();
        },
      },
    });
    const example = element(
      "button",
      {
        type: "button",
        id: "example",
        on: {
          click: () => {
            this.begins();
            this.ink.fill(0);
            const points = EXAMPLES[next++ % EXAMPLES.length].map(([x, y]) => [
              x * this.width,
              y * this.height,
            ]);
            for (let i = 1; i < points.length; i++) this.paint(points[i - 1], points[i]);
            this.hooks.changed();
          },
        },
      },
      "Example",
    );
    tell();
    byId("pad-tools").append(
      example,
      element("label", { className: "check" }, this.erase, "Erase"),
      element("label", { className: "inline-field", htmlFor: "kept" }, "Rows to keep", kept, told),
    );
  }

  // Files

  /** Row by row; null: not made yet. @param {Picture} picture @returns {(number | null)[][]} */
  rowsOf({ pixels }) {
    return Array.from({ length: this.height }, (_, row) =>
      Array.from({ length: this.width }, (_, column) => pixels[row * this.width + column] ?? null),
    );
  }

  asPicture() {
    const pictures = this.shown;
    const zoom = ZOOM;
    const canvas = document.createElement("canvas");
    canvas.width = (this.width + 1) * zoom * pictures.length - zoom;
    canvas.height = this.height * zoom;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.fillStyle = themeColour("ground");
    context.fillRect(0, 0, canvas.width, canvas.height);
    pictures.forEach((picture, i) => {
      picture.draw(zoom, true);
      context.drawImage(picture.canvas, i * (this.width + 1) * zoom, 0);
      picture.redraw();
    });
    return canvas;
  }

  asSvg() {
    const parts = this.shown.map((picture, i) =>
      Array.from(picture.squares(), ({ x, y, size, colour }) => {
        const left = i * (this.width + 1) + x;
        return `<rect x="${left}" y="${y}" width="${size}" height="${size}" fill="${colour}"/>`;
      }).join(""),
    );
    return svg((this.width + 1) * this.shown.length - 1, this.height, parts.join("\n"));
  }
}
