// @ts-check
/** Shows steps at a steady pace, however they arrive. */

const ACKNOWLEDGE_EVERY_MS = 80;
const MOST_PACE = 1e6;

export class Playout {
  /**
   * @param {(index: number) => void} show shows one step
   * @param {(shown: number) => void} acknowledge tells how many were shown
   */
  constructor(show, acknowledge) {
    this.show = show;
    this.acknowledge = acknowledge;
    this.pace = 100; // steps a second; Infinity: at once
    this.available = 0;
    this.shown = 0;
    this.isRunning = false;
    this.isPaused = false;
    this.told = 0;
    this.toldAt = 0;
  }

  /** @param {number} count more steps have come */
  add(count) {
    this.available += count;
    this.start();
  }

  /** @param {boolean} isPaused */
  setPaused(isPaused) {
    this.isPaused = isPaused;
    if (!isPaused) this.start();
  }

  start() {
    if (this.isRunning || this.isPaused || this.shown >= this.available) return;
    this.isRunning = true;
    let last = performance.now();
    let budget = 1;
    const frame = (/** @type {number} */ now) => {
      if (this.isPaused || this.isStopped) {
        this.isRunning = false;
        return;
      }
      budget += ((now - last) / 1000) * Math.min(this.pace, MOST_PACE);
      last = now;
      const isAtOnce = this.pace === Infinity;
      const count = Math.min(isAtOnce ? Infinity : Math.floor(budget), this.available - this.shown);
      for (let i = 0; i < count; i++) this.show(this.shown++);
      budget = Math.min(Math.max(budget - count, 0), 1);
      const isEmpty = this.shown >= this.available;
      if (this.shown > this.told && (isEmpty || now - this.toldAt > ACKNOWLEDGE_EVERY_MS)) {
        this.told = this.shown;
        this.toldAt = now;
        this.acknowledge(this.shown);
      }
      if (isEmpty) this.isRunning = false;
      else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  stop() {
    this.isStopped = true;
  }
}
