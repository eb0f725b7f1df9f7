// @ts-check
/** Images: the upper rows are drawn, the model completes the rest, pixel by pixel. */

import { colourOf, themeColour } from "./colours.js";
import { element, inFrame } from "./dom.js";
import { json, png, svg } from "./downloads.js";

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

  /** The canvas has `zoom` pixels for each of the image. @param {number} zoom */
  draw(zoom = 12) {
    const { canvas, width, height } = this;
    canvas.width = width * zoom;
    canvas.height = height * zoom;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.fillStyle = themeColour("paper");
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (this.kept) {
      context.fillStyle = themeColour("guide");
      context.fillRect(0, this.kept * zoom, canvas.width, canvas.height);
    }
    for (let i = 0; i < this.pixels.length; i++) {
      const colour = this.colour(i);
      if (!colour) continue;
      context.fillStyle = colour;
      const [x, y] = [(i % width) * zoom, Math.floor(i / width) * zoom];
      context.fillRect(x, y, zoom, zoom);
      if (this.values && this.pixels[i] > 0.5) {
        // Its own pixels are still seen among the colours.
        context.fillStyle = themeColour("you");
        context.fillRect(x + zoom / 4, y + zoom / 4, zoom / 2, zoom / 2);
      }
    }
    if (this.cursor !== null) {
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

  /** @param {number} i @returns {string} "" for paper */
  colour(i) {
    const value = this.values?.[i];
    if (value !== undefined) {
      const share = (value - this.scale.low) / (this.scale.high - this.scale.low);
      return colourOf(share);
    }
    if (this.pixels[i] < 0.5) return "";
    return themeColour(i < this.given ? "you" : this.made);
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
    /** @type {Float32Array | undefined} before what was drawn last */ this.before = undefined;
    /** @type {Picture[]} */ this.pictures = [];
    this.views = /** @type {HTMLElement} */ (document.getElementById("views"));
    this.views.classList.add("tiles");
    document.getElementById("pad")?.append(this.pad.canvas);
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
          json({ ...facts, images: this.shown.map((p) => this.rowsOf(p)) }),
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

  beginning() {
    return Array.from(this.ink.subarray(0, this.kept * this.width), (v) => [v > 0.5 ? 1 : 0]);
  }

  given() {
    return Array.from(this.ink, (v) => [v > 0.5 ? 1 : 0]);
  }

  settle() {
    this.dropMade();
  }

  undo() {
    this.ink = this.before ?? new Float32Array(this.ink.length);
    this.before = undefined;
    this.show();
  }

  clear() {
    this.dropMade();
    this.ink = new Float32Array(this.ink.length);
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
      this.views.append(
        element(
          "section",
          { className: "view", aria: { label: title } },
          element("div", { className: "view-head" }, element("h3", {}, title)),
          picture.canvas,
        ),
      );
    }
  }

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
    const place = document.getElementById("reconstruction");
    place?.classList.add("tiles");
    place?.replaceChildren(
      element(
        "section",
        { className: "view", aria: { label: "Reconstruction" } },
        element(
          "div",
          { className: "view-head" },
          element("h3", {}, "Yours, as the model's latents remember it"),
        ),
        picture.canvas,
      ),
    );
  }

  hideReconstruction() {
    document.getElementById("reconstruction")?.replaceChildren();
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

  remember() {
    this.hooks.play();
    this.before = Float32Array.from(this.ink);
  }

  listen() {
    const { canvas } = this.pad;
    /** @type {number[]} */ let last = [];
    /** @type {number | null} that draws: a palm beside it does not */ let pointer = null;
    const at = (/** @type {PointerEvent} */ event) => {
      const box = canvas.getBoundingClientRect();
      return [
        ((event.clientX - box.left) / box.width) * this.width,
        ((event.clientY - box.top) / box.height) * this.height,
      ];
    };
    canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      if (pointer !== null) return;
      pointer = event.pointerId;
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      this.pad.cursor = null;
      this.remember();
      last = at(event);
      this.paint(last, last);
    });
    canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (event.pointerId !== pointer) return;
      const next = at(event);
      this.paint(last, next);
      last = next;
    });
    const end = (/** @type {PointerEvent} */ event) => {
      if (event.pointerId !== pointer) return;
      pointer = null;
      this.hooks.changed();
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.onKey(event));
    canvas.addEventListener("blur", () => {
      this.pad.cursor = null;
      this.pad.redraw();
    });
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    const cursor = (this.pad.cursor ??=
      Math.floor(this.height / 4) * this.width + Math.floor(this.width / 2));
    if (move) {
      const x = Math.min(Math.max((cursor % this.width) + move[0], 0), this.width - 1);
      const y = Math.min(Math.max(Math.floor(cursor / this.width) + move[1], 0), this.height - 1);
      this.pad.cursor = y * this.width + x;
      this.pad.redraw();
    } else {
      this.remember();
      this.ink[cursor] = this.ink[cursor] > 0.5 ? 0 : 1;
      this.show();
      this.hooks.say(this.ink[cursor] ? "Pixel on." : "Pixel off.");
      this.hooks.changed();
    }
  }

  addTools() {
    let next = 0;
    const kept = element("input", {
      type: "range",
      id: "kept",
      min: 1,
      max: this.height - 1,
      value: Math.floor(this.height / 2),
      on: {
        input: () => {
          this.hooks.play();
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
            this.remember();
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
    document
      .getElementById("pad-tools")
      ?.append(
        example,
        element("label", { className: "inline-field", htmlFor: "kept" }, "Rows to keep", kept),
      );
  }

  // Files

  /** @param {Picture} picture @returns {number[][]} */
  rowsOf(picture) {
    return Array.from({ length: this.height }, (_, row) =>
      picture.pixels.slice(row * this.width, (row + 1) * this.width),
    );
  }

  asPicture() {
    const pictures = this.shown;
    const zoom = 12;
    const canvas = document.createElement("canvas");
    canvas.width = (this.width + 1) * zoom * pictures.length - zoom;
    canvas.height = this.height * zoom;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.fillStyle = themeColour("ground");
    context.fillRect(0, 0, canvas.width, canvas.height);
    pictures.forEach((picture, i) => {
      picture.draw(zoom);
      context.drawImage(picture.canvas, i * (this.width + 1) * zoom, 0);
    });
    return canvas;
  }

  asSvg() {
    const parts = this.shown.map((picture, i) => {
      /** @type {string[]} */ const rects = [];
      picture.pixels.forEach((_, at) => {
        const colour = picture.colour(at);
        if (!colour) return;
        const x = i * (this.width + 1) + (at % this.width);
        rects.push(
          `<rect x="${x}" y="${Math.floor(at / this.width)}" width="1" height="1" fill="${colour}"/>`,
        );
      });
      return rects.join("");
    });
    return svg((this.width + 1) * this.shown.length - 1, this.height, parts.join("\n"));
  }
}
