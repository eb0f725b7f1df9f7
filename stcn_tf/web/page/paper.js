// @ts-check
/**
 * Handwriting on paper: its points as the model has them, in one long line, and where they are
 * shown, in rows as wide as the paper. Raw units, y downwards (that of records is upwards).
 */

const ROW_HEIGHT = 3.6; // in heights of small letters
export const MIDDLE = 0.55; // of small letters, from the top of a row, in heights of a row
const MARGIN = 1.3; // on the left, in the same
const RECENT = 50; // points, whose middle says where the writing is
const SLACK = 0.5; // by which it may leave the middle of its row before it is put back, in letters
const END_OF_ROW = 2.0; // from the right edge, where no stroke begins any more

/**
 * @typedef {Object} Line
 * @property {number} ox what is added to a point's x
 * @property {number} oy
 * @property {number} row
 * @property {number} first point of the row
 */

export class Paper {
  /** @param {number} letter height of small letters, raw units */
  constructor(letter) {
    this.letter = letter;
    this.width = 20 * letter;
    /** @type {number[]} */ this.x = [];
    /** @type {number[]} */ this.y = [];
    /** @type {boolean[]} whether a point is the last of its stroke */ this.ends = [];
    /** How many points were given by a person. */
    this.given = 0;
    /** Of points that a person put into another row, where they were put. */
    /** @type {Map<number, {x: number, row: number}>} */ this.breaks = new Map();
    /** @type {Line[]} from what a point is to where it is shown; new ones for every row */
    this.lines = [{ ox: 0, oy: 0, row: 0, first: 0 }];
    /** @type {number[]} of each point the index of its line */ this.line = [];
  }

  clear() {
    this.given = 0;
    this.cut(0);
  }

  /** @returns {Paper} */
  copy() {
    const copy = new Paper(this.letter);
    copy.width = this.width;
    copy.x = [...this.x];
    copy.y = [...this.y];
    copy.ends = [...this.ends];
    copy.given = this.given;
    copy.breaks = new Map(this.breaks);
    copy.layOut();
    return copy;
  }

  get length() {
    return this.x.length;
  }

  get rowHeight() {
    return ROW_HEIGHT * this.letter;
  }

  get numRows() {
    return Math.max(...this.lines.map((line) => line.row)) + 1;
  }

  /** @returns {number[][]} dx, dy (upwards), pen */
  get steps() {
    const steps = [];
    for (let i = 1; i < this.length; i++) {
      steps.push([this.x[i] - this.x[i - 1], this.y[i - 1] - this.y[i], this.ends[i] ? 1 : 0]);
    }
    return steps;
  }

  /** The strokes in one line: points [x, y]. @returns {number[][][]} */
  get strokes() {
    /** @type {number[][][]} */ const strokes = [];
    for (let i = 0; i < this.length; i++) {
      if (i === 0 || this.ends[i - 1]) strokes.push([]);
      strokes[strokes.length - 1].push([this.x[i], this.y[i]]);
    }
    return strokes;
  }

  /** Where the next stroke may begin, as shown. @returns {number[]} */
  get pen() {
    const last = this.length - 1;
    if (last < 0) return [MARGIN * this.letter, MIDDLE * this.rowHeight + 0.5 * this.letter];
    const [x, y] = this.shown(last);
    return [x + 0.5 * this.letter, y];
  }

  /** @param {number} x @param {number} y @param {boolean} isEnd */
  add(x, y, isEnd) {
    this.x.push(x);
    this.y.push(y);
    this.ends.push(isEnd);
    this.place(this.length - 1);
  }

  /** A step of the model. @param {number[]} step */
  push([dx, dy, pen]) {
    if (this.length === 0) this.add(0, 0, false);
    const last = this.length - 1;
    this.add(this.x[last] + dx, this.y[last] - dy, pen > 0.5);
  }

  /**
   * A stroke that a person drew, as it was shown.
   * @param {number[][]} points  @param {{ox: number, oy: number, isNew: boolean, row: number}} origin
   *     what `originAt` said of its first point
   */
  draw(points, origin) {
    if (this.length) this.ends[this.length - 1] = true;
    if (origin.isNew) this.breaks.set(this.length, { x: points[0][0], row: origin.row });
    this.given = this.length + points.length;
    points.forEach(([x, y], i) => {
      this.add(x - origin.ox, y - origin.oy, i === points.length - 1);
    });
  }

  /** What turns a point as it is shown into one of the line. @param {number} x @param {number} y */
  originAt(x, y) {
    const current = this.lines[this.lines.length - 1];
    if (this.length === 0) return { ...current, isNew: false };
    const row = Math.max(Math.floor(y / this.rowHeight), 0);
    const lastX = this.shown(this.length - 1)[0];
    if (row > current.row && x < lastX) {
      const ox = x - (this.x[this.length - 1] + this.letter);
      const oy = current.oy + (row - current.row) * this.rowHeight;
      return { ox, oy, isNew: true, row };
    }
    const line = this.lines.findLast((other) => other.row === row) ?? current;
    return { ...line, isNew: false };
  }

  /** Takes off the last stroke. */
  undo() {
    const strokes = this.strokes;
    const kept = this.length - (strokes.pop()?.length ?? 0);
    this.cut(kept);
    this.given = Math.min(this.given, kept);
  }

  /** @param {number} length points to keep */
  cut(length) {
    this.x.length = this.y.length = this.ends.length = length;
    for (const index of this.breaks.keys()) if (index >= length) this.breaks.delete(index);
    this.layOut();
  }

  layOut() {
    this.lines = [{ ox: 0, oy: 0, row: 0, first: 0 }];
    this.line = [];
    for (let i = 0; i < this.x.length; i++) this.place(i);
  }

  /** Puts a point into the row where it belongs. @param {number} i */
  place(i) {
    const { letter, width } = this;
    let line = this.lines[this.lines.length - 1];
    if (i === 0 && this.given === 0 && this.x[0] === 0 && this.y[0] === 0) {
      // Written by the model alone, from the beginning on.
      line.ox = MARGIN * letter;
      line.oy = MIDDLE * this.rowHeight + 0.3 * letter;
    }
    const broken = this.breaks.get(i);
    const isStart = i === 0 || this.ends[i - 1];
    const shown = this.x[i] + line.ox;
    const isGiven = i < this.given;
    const isFull = isGiven ? shown > width + letter : shown > width - 0.15 * letter;
    if (broken) {
      line = {
        ox: broken.x - this.x[i],
        oy: line.oy + (broken.row - line.row) * this.rowHeight,
        row: broken.row,
        first: i,
      };
      this.lines.push(line);
    } else if (isFull || (isStart && !isGiven && shown > width - END_OF_ROW * letter)) {
      const mean = this.recentMiddle(i, line.first);
      const row = Math.max(line.row, Math.floor((mean + line.oy) / this.rowHeight)) + 1;
      line = {
        ox: MARGIN * letter - this.x[i],
        oy: (row + MIDDLE) * this.rowHeight - mean,
        row,
        first: i,
      };
      this.lines.push(line);
    } else if (isStart && !isGiven && i > 0) {
      this.level(i, line);
    }
    this.line[i] = this.lines.length - 1;
  }

  /** Lines of the model climb or sink: they are shown level, a stroke at a time. @param {number} i @param {Line} line */
  level(i, line) {
    const middle = this.recentMiddle(i, line.first) + line.oy;
    const off = middle - (line.row + MIDDLE) * this.rowHeight;
    if (Math.abs(off) < SLACK * this.letter) return;
    const by = Math.sign(off) * Math.min(0.5 * Math.abs(off), this.letter);
    this.lines.push({ ...line, oy: line.oy - by });
  }

  /** @param {number} i @param {number} first of its row */
  recentMiddle(i, first) {
    const recent = this.y.slice(Math.max(first, i - RECENT), i);
    return recent.reduce((sum, y) => sum + y, 0) / Math.max(recent.length, 1);
  }

  /** Where a point is shown. @param {number} i @returns {number[]} */
  shown(i) {
    const line = this.lines[this.line[i]];
    return [this.x[i] + line.ox, this.y[i] + line.oy];
  }

  /**
   * The pieces to draw: lines between neighbours of one stroke and one row, and dots.
   * @param {(from: number, to: number) => void} piece by the numbers of points; from = to: a dot
   */
  eachPiece(piece) {
    for (let i = 0; i < this.length; i++) {
      const begins = i === 0 || this.ends[i - 1];
      if (!begins && this.line[i] === this.line[i - 1]) piece(i - 1, i);
      else if (begins && this.ends[i]) piece(i, i);
    }
  }
}
