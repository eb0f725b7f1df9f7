// @ts-check
/** Handwriting: a pad to write on, on which the model goes on; further continuations below it. */

import { shadeOf, themeColour } from "./colours.js";
import { request } from "./connection.js";
import { byId, element, inFrame, sharp, view } from "./dom.js";
import { inkml, json, png, round, svg } from "./downloads.js";
import { MARGIN, MIDDLE, Paper } from "./paper.js";
import { ARROWS, followPointer } from "./pointer.js";
import { resample } from "./resample.js";

const EXAMPLES = ["hello", "the sun", "once upon", "we write"];
const LETTER_PX = { least: 12, most: 60, wide: 30, narrow: 22 };
const PAD_ROWS = { wide: 3, narrow: 2 };
const WORD_GAP = 1.0; // beyond that of letters, in letters
const LETTER_OF_STROKES = 0.8; // height of small letters, in median heights of strokes

/** A paper on a canvas. */
class Sheet {
  /** @param {Paper} paper @param {string} label @param {() => number} letterPx @param {number} rows at least */
  constructor(paper, label, letterPx, rows) {
    this.paper = paper;
    this.letterPx = letterPx;
    this.rows = rows;
    this.canvas = element("canvas", { role: "img", aria: { label } });
    /** @type {number[] | null} */ this.values = null;
    this.scale = { low: 0, high: 1 };
    /** @type {number[][]} what is being drawn now */ this.pending = [];
    /** @type {number[] | null} where the pen of the keyboard is */ this.cursor = null;
    this.isWriting = false;
    this.made = "model";
    this.redraw = inFrame(() => this.draw());
    new ResizeObserver(() => {
      if (Math.abs(this.canvas.clientWidth - this.width) > 1) this.resize();
    }).observe(this.canvas);
    this.width = 0;
  }

  /** Pixels for a raw unit. */
  get unit() {
    return this.letterPx() / this.paper.letter;
  }

  resize() {
    this.width = this.canvas.clientWidth;
    this.paper.width = this.width / this.unit;
    this.paper.layOut();
    this.redraw();
  }

  get height() {
    const { lowest, letter, numRows, rowHeight } = this.paper;
    // Half a row more for letters that sink below the last one.
    const needed = Math.ceil((2 * (lowest + 0.2 * letter)) / rowHeight) / 2;
    return Math.round(Math.max(this.rows, numRows, needed) * rowHeight * this.unit);
  }

  /** The colour of what a point ends. @param {number} i */
  colour(i) {
    const plain = () => themeColour(i < this.paper.given ? "you" : this.made);
    return shadeOf(this.values, this.scale, Math.max(i - 1, 0)) ?? plain();
  }

  draw() {
    if (!this.width) return;
    const { paper, unit } = this;
    const context = sharp(this.canvas, this.width, this.height);
    this.drawGuides(context);
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = Math.max(1.5, 0.075 * this.letterPx());
    const colours = this.values ? null : { you: themeColour("you"), made: themeColour(this.made) };
    let colour = "";
    let last = -1;
    paper.eachPiece((from, to) => {
      const next = colours ? (to < paper.given ? colours.you : colours.made) : this.colour(to);
      const [x, y] = paper.shown(from);
      if (next !== colour || from !== last) {
        if (colour) context.stroke();
        context.strokeStyle = colour = next;
        context.beginPath();
        context.moveTo(x * unit, y * unit);
      }
      const [toX, toY] = paper.shown(to);
      context.lineTo(toX * unit + (from === to ? 0.01 : 0), toY * unit);
      last = to;
    });
    if (colour) context.stroke();
    if (this.pending.length) {
      context.strokeStyle = themeColour("you");
      context.beginPath();
      for (const [x, y] of this.pending) context.lineTo(x * unit, y * unit);
      context.stroke();
    }
    const tip =
      this.cursor ?? (this.isWriting && paper.length ? paper.shown(paper.length - 1) : null);
    if (tip) {
      context.fillStyle = themeColour(this.cursor ? "accent" : this.made);
      context.beginPath();
      context.arc(tip[0] * unit, tip[1] * unit, 0.16 * this.letterPx() + 1, 0, 2 * Math.PI);
      context.fill();
    }
  }

  /** @param {CanvasRenderingContext2D} context */
  drawGuides(context) {
    const row = this.paper.rowHeight * this.unit;
    const letter = this.letterPx();
    context.strokeStyle = themeColour("guide");
    context.lineWidth = 1;
    for (let middle = MIDDLE * row; middle < this.height; middle += row) {
      for (const y of [middle - letter / 2, middle + letter / 2]) {
        context.beginPath();
        context.moveTo(0, Math.round(y) + 0.5);
        context.lineTo(this.width, Math.round(y) + 0.5);
        context.stroke();
      }
    }
  }

  /** @param {number} top @returns {string} of SVG */
  svg(top) {
    const { paper, unit } = this;
    /** @type {{colour: string, points: string[]}[]} */ const lines = [];
    let last = -1;
    const text = (/** @type {number} */ i) => {
      const [x, y] = paper.shown(i);
      return `${round(x * unit)},${round(y * unit + top)}`;
    };
    paper.eachPiece((from, to) => {
      const colour = this.colour(to);
      if (from !== last || lines[lines.length - 1].colour !== colour) {
        lines.push({ colour, points: [text(from)] });
      }
      lines[lines.length - 1].points.push(text(to));
      last = to;
    });
    const width = round(Math.max(1.5, 0.075 * this.letterPx()));
    const drawn = lines.map(
      (l) => `<polyline stroke="${l.colour}" points="${l.points.join(" ")}"/>`,
    );
    return `<g fill="none" stroke-width="${width}" stroke-linecap="round" stroke-linejoin="round">\n${drawn.join("\n")}\n</g>`;
  }
}

export class InkMedium {
  title = "Write here";
  hint = "With mouse, pen or finger, between the lines. Then let the model continue.";
  keyboard =
    "Without a pointer: type a word and let it be written, or move to the pad; arrow keys move the pen, with Shift by little, the space bar puts it down and lifts it.";
  labels = { temperature: "Shape", binary_temperature: "Pen lifts" };
  temperatures = { temperature: 0.7, latent_temperature: 1, binary_temperature: 1 };
  pace = { least: 20, most: 400, step: 10, usual: 120 };
  isWhole = false;

  /** @param {any} model @param {import("./medium.js").Hooks} hooks */
  constructor(model, hooks) {
    this.hooks = hooks;
    this.step = model.writing.step_length;
    const letter = LETTER_OF_STROKES * model.writing.stroke_height;
    const most = Math.min(model.limits.max_steps, 2000);
    this.length = { least: 50, most, step: 50, usual: Math.min(400, most) };
    const size = window.innerWidth < 600 ? "narrow" : "wide";
    this.letterPx = LETTER_PX[size];
    const label = "Writing pad. Arrow keys move the pen, space puts it down and lifts it.";
    this.pad = new Sheet(new Paper(letter), label, () => this.letterPx, PAD_ROWS[size]);
    Object.assign(this.pad.canvas, { className: "pad", tabIndex: 0, id: "ink" });
    this.pad.canvas.setAttribute("role", "application");
    /** @type {Sheet[]} */ this.sheets = [this.pad];
    this.views = byId("views");
    byId("pad").append(this.pad.canvas);
    this.listen();
    this.addTools();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    this.formats = [
      { label: "SVG", ending: "svg", make: () => this.asSvg() },
      { label: "PNG", ending: "png", make: () => png(this.asPicture()) },
      {
        label: "InkML",
        ending: "inkml",
        make: () => this.sheets.map((s) => inkml(s.paper.strokes)),
      },
      { label: "JSON", ending: "json", make: (/** @type {object} */ facts) => this.asJson(facts) },
    ];
  }

  /** @param {number} steps */
  lengthText(steps) {
    return `${steps} points`;
  }

  get isEmpty() {
    return this.pad.paper.given === 0;
  }

  get canBegin() {
    return !this.isEmpty;
  }

  get canUndo() {
    return !this.isEmpty;
  }

  beginning() {
    const { paper } = this.pad;
    const steps = paper.steps.slice(0, Math.max(paper.given - 1, 0));
    if (paper.given && !steps.length) throw new Error("A dot is not enough: write a little more.");
    return steps;
  }

  given() {
    return this.beginning();
  }

  settle() {
    this.keep(0);
    return "";
  }

  undo() {
    this.pad.paper.undo();
    this.redraw();
    return "The last stroke is gone.";
  }

  clear() {
    this.dropMade();
    this.pad.paper.clear();
    this.redraw();
  }

  /** @param {number} rows @param {boolean} isAlone */
  begin(rows, isAlone) {
    this.dropMade();
    if (isAlone) this.clear();
    for (let row = 1; row < rows; row++) {
      const sheet = new Sheet(
        this.pad.paper.copy(),
        `Continuation ${row + 1}`,
        () => this.letterPx,
        1,
      );
      this.sheets.push(sheet);
      this.views.append(this.viewOf(sheet, `Continuation ${row + 1}`, row));
    }
    for (const sheet of this.sheets) sheet.isWriting = true;
  }

  /** @param {Sheet} sheet @param {string} title @param {number} row */
  viewOf(sheet, title, row) {
    const keep = element(
      "button",
      { type: "button", className: "small-button", on: { click: () => this.hooks.keep(row) } },
      `Keep this one`,
    );
    keep.setAttribute("aria-label", `Keep ${title.toLowerCase()}`);
    return view(title, title, sheet.canvas, keep);
  }

  expect() {}

  /** @param {number} row @param {number[]} step */
  push(row, step) {
    this.sheets[row].paper.push(step);
    this.sheets[row].redraw();
  }

  /** The model has stopped. */
  rest() {
    for (const sheet of this.sheets) sheet.isWriting = false;
    this.redraw();
  }

  dropMade() {
    this.views.replaceChildren();
    this.sheets = [this.pad];
    this.pad.values = null;
    this.pad.isWriting = false;
    this.pad.paper.cut(this.pad.paper.given);
    this.redraw();
  }

  /** @param {number} row */
  keep(row) {
    const { paper } = this.sheets[row];
    paper.given = paper.length;
    if (paper.length) paper.ends[paper.length - 1] = true;
    paper.layOut();
    this.pad.paper = paper;
    this.pad.resize();
    this.dropMade();
  }

  /** @param {number} row */
  sequence(row) {
    return this.sheets[row].paper.steps;
  }

  /** @param {number} row @param {number[] | null} values @param {{low: number, high: number}} scale */
  colour(row, values, scale) {
    const sheet = this.sheets[row];
    if (!sheet) return;
    sheet.values = values;
    sheet.scale = scale;
    sheet.redraw();
  }

  /** @param {number[][]} x */
  showReconstruction(x) {
    const from = this.pad.paper;
    const paper = new Paper(from.letter);
    paper.width = from.width;
    const first = from.given - 1 - x.length; // of which it is a reconstruction
    paper.add(from.x[first], from.y[first], false, first > 0);
    for (const step of x) paper.push(step);
    const sheet = new Sheet(paper, "Reconstruction of what was written", () => this.letterPx, 1);
    sheet.made = "rebuilt";
    const title = "The same line, as the model's latents remember it";
    byId("reconstruction").replaceChildren(view("Reconstruction", title, sheet.canvas));
  }

  hideReconstruction() {
    byId("reconstruction").replaceChildren();
  }

  redraw() {
    for (const sheet of this.sheets) sheet.redraw();
  }

  // What a person does

  /** Strokes, as they were shown on the pad. @param {number[][][]} strokes */
  addStrokes(strokes) {
    for (const points of strokes) this.pad.paper.draw(resample(points, this.step));
    this.pad.redraw();
    this.hooks.changed();
  }

  listen() {
    const { canvas } = this.pad;
    const scaled = (/** @type {number[]} */ at) => at.map((v) => v / this.pad.unit);
    const lift = () => {
      const points = this.pad.pending;
      this.pad.pending = [];
      if (points.length) this.addStrokes([points]);
    };
    followPointer(canvas, {
      down: (at, isEraser) => {
        if (isEraser) return;
        lift(); // what the keyboard draws
        this.hooks.play();
        this.pad.cursor = null;
        this.pad.pending = [scaled(at)];
        this.pad.redraw();
      },
      move: (points) => {
        this.pad.pending.push(...points.map(scaled));
        this.pad.redraw();
      },
      up: lift,
      drop: () => (this.pad.pending = []),
    });
    canvas.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) =>
      this.onKey(event, lift),
    );
    canvas.addEventListener("blur", () => {
      if (this.pad.cursor) lift();
      this.pad.cursor = null;
      this.pad.redraw();
    });
  }

  /** @param {KeyboardEvent} event @param {() => void} lift */
  onKey(event, lift) {
    const move = ARROWS[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    const pad = this.pad;
    pad.cursor ??= pad.paper.pen;
    if (move) {
      const by = pad.paper.letter / (event.shiftKey ? 12 : 3);
      const limits = [pad.paper.width, pad.height / pad.unit];
      pad.cursor = pad.cursor.map((v, i) => Math.min(Math.max(v + by * move[i], 0), limits[i]));
      if (pad.pending.length) pad.pending.push(pad.cursor);
    } else if (pad.pending.length) {
      lift();
      this.hooks.say("Pen lifted.");
    } else {
      this.hooks.play();
      pad.pending = [pad.cursor];
      this.hooks.say("Pen down.");
    }
    pad.redraw();
  }

  addTools() {
    let next = 0;
    const word = element("input", { type: "text", id: "word", maxLength: 60, autocomplete: "off" });
    const write = () => this.letter(word.value.trim());
    word.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter") write();
    });
    const size = element("input", {
      type: "range",
      id: "size",
      min: LETTER_PX.least,
      max: LETTER_PX.most,
      value: this.letterPx,
      on: {
        input: () => {
          this.letterPx = Number(size.value);
          for (const sheet of this.sheets) sheet.resize();
        },
      },
    });
    byId("pad-tools").append(
      element("label", { className: "inline-field", htmlFor: "word" }, "Or type", word),
      element("button", { type: "button", id: "letter", on: { click: write } }, "Write it"),
      element(
        "button",
        {
          type: "button",
          id: "example",
          on: { click: () => this.letter(EXAMPLES[next++ % EXAMPLES.length]) },
        },
        "Example",
      ),
      element("span", { className: "spacer" }),
      element("label", { className: "inline-field", htmlFor: "size" }, "Size of writing", size),
    );
  }

  /** Puts a text onto the pad, in letters of a font. @param {string} text */
  async letter(text) {
    if (!text) return;
    try {
      /** @type {number[][][][]} */ const words = [];
      for (const word of text.split(/\s+/)) {
        const answer = await request("GET", `/api/lettering?text=${encodeURIComponent(word)}`);
        words.push(answer.strokes);
      }
      this.hooks.play();
      const { paper } = this.pad;
      words.forEach((strokes, number) => {
        let [x] = paper.pen;
        if (number) x += WORD_GAP * paper.letter;
        let { row } = paper.current;
        const width = Math.max(...strokes.flat().map((point) => point[0])) * paper.letter;
        if (paper.length && x + width > paper.width) {
          row = paper.numRows;
          x = MARGIN * paper.letter;
        }
        const base = (row + MIDDLE) * paper.rowHeight + 0.5 * paper.letter;
        this.addStrokes(
          strokes.map((stroke) =>
            stroke.map(([sx, sy]) => [x + sx * paper.letter, base + (sy - 1) * paper.letter]),
          ),
        );
      });
    } catch (error) {
      this.hooks.say(/** @type {Error} */ (error).message, true);
    }
  }

  // Files

  asPicture() {
    const canvas = document.createElement("canvas");
    const gap = 12 * (window.devicePixelRatio || 1);
    canvas.width = Math.max(...this.sheets.map((s) => s.canvas.width));
    canvas.height = this.sheets.reduce((sum, s) => sum + s.canvas.height + gap, -gap);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.fillStyle = themeColour("paper");
    context.fillRect(0, 0, canvas.width, canvas.height);
    let top = 0;
    for (const sheet of this.sheets) {
      sheet.draw();
      context.drawImage(sheet.canvas, 0, top);
      top += sheet.canvas.height + gap;
    }
    return canvas;
  }

  asSvg() {
    let top = 0;
    const parts = this.sheets.map((sheet) => {
      const part = sheet.svg(top);
      top += sheet.height + 12;
      return part;
    });
    return svg(this.pad.width, top - 12, parts.join("\n"));
  }

  /** As `python -m data_prep.ink` reads it, too. @param {object} facts */
  asJson(facts) {
    const lines = this.sheets.map(({ paper }) => ({
      strokes: paper.strokes,
      y_axis: "down",
      given_points: paper.given,
      ...facts,
    }));
    return json(lines.length === 1 ? lines[0] : lines);
  }
}
