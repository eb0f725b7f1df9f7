// @ts-check
/**
 * Handwriting on paper: its points as the model has them, in one long line, and where they are
 * shown, in rows as wide as the paper. Raw units, y downwards (that of records is upwards).
 */

const ROW_HEIGHT = 3.6; // in heights of small letters
export const MIDDLE = 0.55; // of small letters, from the top of a row, in heights of a row
export const MARGIN = 1.3; // on the left, in the same
const RECENT = 50; // points, whose middle says where the writing is
const SLACK = 0.5; // by which it may leave the middle of its row before it is put back, in letters
const END_OF_ROW = 2.0; // from the right edge, where no stroke begins any more

/**
 * @typedef {Object} Line
 * @property {number} ox what is added to a point's x
 * @property {number} oy
 * @property {number} row
 * @property {number} first point of the row
 *
 * @typedef {Object} Place
 * @property {number} x where a point is shown
 * @property {number} row
 * @property {number} by what is added to the `oy` of the line before
 */

export class Paper {
  /** @param {number} letter height of small letters, raw units */
  constructor(letter) {
    this.letter = letter;
    this.width = 20 * letter;
    /** @type {number[]} */ this.x = [];
    /** @type {number[]} */ this.y = [];
    /** @type {boolean[]} whether a point is the last of its stroke */ this.ends = [];
    /** @type {boolean[]} whether the model wrote a point: what it wrote stays where it is shown */
    this.made = [];
    /** How many points are what the model goes on from. */
    this.given = 0;
    /** Of points that a person put elsewhere than behind what was last, where they were put. */
    /** @type {Map<number, Place>} */ this.breaks = new Map();
    /** @type {Line[]} from what a point is to where it is shown; new ones for every row */
    this.lines = [{ ox: 0, oy: 0, row: 0, first: 0 }];
    /** @type {number[]} of each point the index of its line */ this.line = [];
    this.numRows = 1;
    /** The lowest place where a point is shown. */
    this.lowest = 0;
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
    copy.made = [...this.made];
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

  /** @param {number} x @param {number} y @param {boolean} isEnd @param {boolean} isMade */
  add(x, y, isEnd, isMade) {
    this.x.push(x);
    this.y.push(y);
    this.ends.push(isEnd);
    this.made.push(isMade);
    this.place(this.length - 1);
  }

  /** A step of the model. @param {number[]} step */
  push([dx, dy, pen]) {
    if (this.length === 0) this.add(0, 0, false, true);
    const last = this.length - 1;
    this.add(this.x[last] + dx, this.y[last] - dy, pen > 0.5, true);
  }

  /**
   * A stroke that a person drew, as it was shown.
   * @param {number[][]} points
   */
  draw(points) {
    if (this.length) this.ends[this.length - 1] = true;
    const origin = this.originAt(points[0][0], points[0][1]);
    if (origin !== this.current) {
      const by = origin.oy - this.current.oy;
      this.breaks.set(this.length, { x: points[0][0], row: origin.row, by });
    }
    this.given = this.length + points.length;
    points.forEach(([x, y], i) => {
      this.add(x - origin.ox, y - origin.oy, i === points.length - 1, false);
    });
  }

  get current() {
    return this.lines[this.lines.length - 1];
  }

  /**
   * What turns a point as it is shown into one of the line.
   * @param {number} x @param {number} y @returns {{ox: number, oy: number, row: number}}
   */
  originAt(x, y) {
    const { current } = this;
    if (this.length === 0) return current;
    const row = Math.max(Math.floor(y / this.rowHeight), 0);
    const line = this.lines.findLast((other) => other.row === row);
    if (line) return line;
    if (row < current.row || x >= this.shown(this.length - 1)[0]) return current;
    const ox = x - (this.x[this.length - 1] + this.letter);
    return { ox, oy: current.oy + (row - current.row) * this.rowHeight, row };
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
    this.x.length = this.y.length = this.ends.length = this.made.length = length;
    for (const index of this.breaks.keys()) if (index >= length) this.breaks.delete(index);
    this.layOut();
  }

  layOut() {
    this.lines = [{ ox: 0, oy: 0, row: 0, first: 0 }];
    this.line = [];
    this.numRows = 1;
    this.lowest = 0;
    for (let i = 0; i < this.x.length; i++) this.place(i);
  }

  /** Puts a point into the row where it belongs. @param {number} i */
  place(i) {
    const { letter, width } = this;
    let line = this.current;
    const isMade = this.made[i];
    if (i === 0 && isMade) {
      // Written by the model alone, from the beginning on.
      line.ox = MARGIN * letter - this.x[0];
      line.oy = MIDDLE * this.rowHeight + 0.3 * letter - this.y[0];
    }
    const broken = this.breaks.get(i);
    const isStart = i === 0 || this.ends[i - 1];
    const shown = this.x[i] + line.ox;
    // Strokes of a person are never torn; they reach beyond the edge where the paper has shrunk. The
    // model goes on below all that there is, also where the last stroke was put into an earlier row.
    const isFull = isMade
      ? line.row < this.numRows - 1 || shown > width - (isStart ? END_OF_ROW : 0.15) * letter
      : isStart && shown > width;
    if (broken) {
      line = {
        ox: broken.x - this.x[i],
        oy: line.oy + broken.by,
        row: broken.row,
        first: i,
      };
      this.lines.push(line);
    } else if (isFull) {
      const mean = this.recentMiddle(i, line.first);
      const row = Math.max(this.numRows - 1, Math.floor((mean + line.oy) / this.rowHeight)) + 1;
      line = {
        ox: MARGIN * letter - this.x[i],
        oy: (row + MIDDLE) * this.rowHeight - mean,
        row,
        first: i,
      };
      this.lines.push(line);
    } else if (isStart && isMade && i > 0) {
      this.level(i, line);
    }
    this.line[i] = this.lines.length - 1;
    this.numRows = Math.max(this.numRows, line.row + 1);
    this.lowest = Math.max(this.lowest, this.shown(i)[1]);
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
