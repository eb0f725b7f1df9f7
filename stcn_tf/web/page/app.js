// @ts-check
/** The page: what its controls do, whatever the medium. */

import { GRADIENT, scaleOf } from "./colours.js";
import { ServiceError, Stream, request } from "./connection.js";
import { byId, element } from "./dom.js";
import { save } from "./downloads.js";
import { mediumOf } from "./medium.js";
import { Playout } from "./playout.js";

const TEMPERATURES = ["temperature", "latent_temperature", "binary_temperature"];
const PING_MS = 10_000;
const PING_LOST_MS = 2_000;
const MOST_SEED = 2 ** 31 - 1;
const GONE = 404;
const TOO_LARGE = 413;
const TOO_LARGE_TEXT =
  "That is too much to be sent: begin with less, or take fewer continuations of it.";
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** Everything that goes on together: a session, its stream, its pace. */
class Run {
  /** @param {number} seed @param {number} rows @param {boolean} isAlone */
  constructor(seed, rows, isAlone) {
    this.seed = seed;
    this.rows = rows;
    this.isAlone = isAlone;
    this.target = 0;
    this.limit = Infinity;
    this.shown = 0;
    this.shownBefore = 0; // in sessions before this one
    /** @type {number[][][]} */ this.steps = [];
    /** @type {Stream | null} */ this.stream = null;
    /** @type {Playout | null} */ this.playout = null;
    this.isBeginning = false; // its session is being made
    this.isPaused = false;
    this.isOver = false;
    /** @type {Record<string, number>} of the steps that were made last */ this.temperatures = {};
  }

  get isGoing() {
    return !this.isOver && !this.isPaused && this.shown < this.target;
  }
}

class App {
  /** @param {any} model */
  constructor(model) {
    this.model = model;
    /** @type {Run | null} */ this.run = null;
    /** @type {object | null} what is or will be shown as a reconstruction */ this.rebuilt = null;
    /** @type {object | null} the score that is awaited */ this.ticket = null;
    this.isStale = false;
    /** @type {any[]} as POST /api/score gives them, one for each continuation */ this.scores = [];
    this.medium = mediumOf(model, {
      changed: () => this.changed(),
      keep: (row) => this.keep(row),
      say: (text, isBad) => say(text, isBad),
      play: () => this.settle(),
    });
    this.setUp();
    this.refresh();
    this.ping();
  }

  // Controls

  setUp() {
    const { medium, model } = this;
    byId("title").textContent = "Go on from here";
    const what = new Map([
      ["handwriting", "handwriting"],
      ["audio", "sounds"],
      ["image", "images"],
    ]).get(model.modality.kind);
    byId("about").textContent =
      `A model of ${what} continues what you begin (data set: ${model.dataset}).`;
    byId("pad-title").textContent = medium.title;
    byId("hint").textContent = medium.hint;
    byId("keyboard").textContent = medium.keyboard;
    for (let n = 1; n <= Math.min(model.limits.max_rows, 4); n++) {
      byId("rows").append(element("option", { value: n }, String(n)));
    }
    this.range("length", medium.length, (v) => medium.lengthText(v));
    byId("length").closest(".field").hidden = medium.isWhole;
    this.range("pace", medium.pace, (v) => `${v} steps a second`);
    byId("pace").addEventListener("input", () => this.setPace());
    calm.addEventListener("change", () => this.setPace());
    for (const name of TEMPERATURES) {
      const input = byId(name);
      input.value = medium.temperatures[name];
      const label = medium.labels[name];
      if (name !== "latent_temperature") byId(`${name}-field`).hidden = !label;
      if (label) byId(`${name}-label`).textContent = label;
      const show = () => (byId(`${name}-out`).textContent = Number(input.value).toFixed(2));
      show();
      input.addEventListener("input", () => {
        show();
        if (!this.run) return;
        this.run.stream?.setTemperatures(this.temperatures);
        if (this.run.isGoing) this.run.temperatures = this.temperatures;
      });
    }
    byId("latent_temperature-field").hidden = !model.layers;
    this.setUpWake();
    for (const format of medium.formats) {
      byId("downloads").append(
        element(
          "button",
          {
            type: "button",
            id: `save-${format.ending}`,
            on: { click: () => this.download(format) },
          },
          format.label,
        ),
      );
    }
    byId("continue").addEventListener("click", () => this.goOn());
    byId("again").addEventListener("click", () => this.again());
    byId("alone").addEventListener("click", () => this.begin(true));
    byId("undo").addEventListener("click", () => this.undo());
    byId("clear").addEventListener("click", () => this.clear());
    byId("reconstruct").addEventListener("click", () => this.reconstruct());
    // A run that was begun with other ones is begun anew.
    byId("seed").addEventListener("change", () => {
      byId("seed").value = this.seed;
      this.isStale = true;
    });
    byId("rows").addEventListener("change", () => (this.isStale = true));
    window.addEventListener("pagehide", () => this.run?.stream?.close());
  }

  /** @param {string} id @param {{least: number, most: number, step: number, usual: number}} range @param {(v: number) => string} text */
  range(id, { least, most, step, usual }, text) {
    const input = byId(id);
    Object.assign(input, { min: least, max: most, step, value: usual });
    const show = () => {
      const said = text(Number(input.value));
      byId(`${id}-out`).textContent = said;
      input.setAttribute("aria-valuetext", said);
    };
    input.addEventListener("input", show);
    show();
  }

  get temperatures() {
    return Object.fromEntries(TEMPERATURES.map((name) => [name, Number(byId(name).value)]));
  }

  get seed() {
    const value = Math.floor(Number(byId("seed").value));
    return Math.min(Math.max(Number.isFinite(value) ? value : 0, 0), MOST_SEED);
  }

  setPace() {
    if (this.run?.playout)
      this.run.playout.pace = calm.matches ? Infinity : Number(byId("pace").value);
  }

  refresh() {
    const { run, medium } = this;
    const isGoing = Boolean(run?.isGoing);
    byId("continue").textContent = isGoing ? "Pause" : "Continue";
    byId("continue").disabled = !medium.canBegin && !run;
    byId("again").disabled = !run;
    byId("alone").disabled = false;
    byId("undo").disabled = !medium.canUndo && !run;
    byId("clear").disabled = medium.isEmpty && !run;
    byId("reconstruct").disabled = medium.isEmpty;
    const progress = byId("progress");
    progress.hidden = !run || !isGoing;
    if (run) {
      progress.max = run.target;
      progress.value = run.shown;
    }
    for (const button of byId("downloads").children) button.disabled = medium.isEmpty && !run;
    if (document.activeElement?.matches(":disabled")) this.focusPad();
  }

  /** Whoever goes on by keyboard goes on at the pad, not at the top of the page. */
  focusPad() {
    const pad = document.querySelector("#pad [tabindex], #pad-tools button:enabled");
    /** @type {HTMLElement | null} */ (pad)?.focus({ preventScroll: true });
  }

  // Going on

  goOn() {
    const { run } = this;
    if (run?.isGoing) return this.pause(run);
    if (!run || this.isStale) return this.begin(false);
    if (run.isPaused) return this.resume(run);
    if (run.target >= run.limit) return say("It is complete: press Again for another one.");
    return this.extend(run);
  }

  again() {
    const last = this.run;
    if (!last) return;
    byId("seed").value = (this.seed + 1) % (MOST_SEED + 1);
    this.begin(last.isAlone);
  }

  /** @param {boolean} isAlone from nothing */
  async begin(isAlone) {
    this.stop();
    this.isStale = false;
    let beginning;
    try {
      beginning = isAlone ? [] : this.medium.beginning();
    } catch (error) {
      return say(/** @type {Error} */ (error).message, true);
    }
    const run = (this.run = new Run(this.seed, Number(byId("rows").value), isAlone));
    this.hideReconstruction();
    this.medium.begin(run.rows, isAlone);
    await this.connect(run, { beginnings: [this.lastOf(beginning)], rows: run.rows }, this.wanted);
  }

  get wanted() {
    return this.medium.isWhole ? this.medium.length.most : Number(byId("length").value);
  }

  /**
   * Goes on with a new session.
   * @param {Run} run
   * @param {{beginnings: number[][][], rows?: number}} from rows: continuations of each
   * @param {number} count steps, if there may be so many
   */
  async connect(run, from, count) {
    say("Going on …");
    this.forgetScores();
    run.target = run.shown + count;
    this.medium.expect(run.target);
    run.isBeginning = true;
    run.isPaused = false;
    run.temperatures = this.temperatures;
    this.refresh();
    let session;
    try {
      session = await request("POST", "/api/sessions", {
        ...from,
        seed: run.seed,
        temperatures: run.temperatures,
      });
    } catch (error) {
      run.isBeginning = false;
      if (this.run === run) this.fail(run, /** @type {ServiceError} */ (error));
      return;
    }
    run.isBeginning = false;
    setConnection("good");
    if (this.run !== run) {
      request("DELETE", `/api/sessions/${session.id}`).catch(() => {});
      return;
    }
    run.shownBefore = run.shown;
    run.limit = run.shownBefore + session.limit;
    run.target = Math.min(run.target, run.limit);
    this.medium.expect(run.target);
    run.steps = [];
    const stream = new Stream(session.id, {
      steps: (x) => {
        run.steps.push(...x[0].map((_, i) => x.map((row) => row[i])));
        playout.add(x[0].length);
      },
      lost: () => {
        setConnection("bad");
        say("The connection is lost. Trying again …", true);
      },
      regained: () => {
        setConnection("good");
        say(run.isGoing ? "Connected again, going on …" : "Connected again.");
      },
      failed: (error) => this.fail(run, error),
    });
    const playout = new Playout(
      (index) => this.show(run, run.steps[index]),
      (shown) => stream.acknowledge(shown),
    );
    run.stream = stream;
    run.playout = playout;
    this.setPace();
    stream.want(run.target - run.shownBefore);
    // Asked for while the session was being made.
    stream.setTemperatures(this.temperatures);
    if (run.isPaused) {
      stream.pause();
      playout.setPaused(true);
    }
    this.refresh();
  }

  /** @param {Run} run @param {number[][]} step of each row */
  show(run, step) {
    step.forEach((values, row) => this.medium.push(row, values));
    run.shown++;
    byId("progress").value = run.shown;
    if (run.shown >= run.target) {
      this.medium.rest();
      say(
        run.shown >= run.limit
          ? "Done. Again tries another one."
          : `Done, ${this.medium.lengthText(run.shown)}. Continue goes further, Again tries another one.`,
      );
      this.refresh();
      this.wake();
    }
  }

  /** @param {Run} run */
  pause(run) {
    run.isPaused = true;
    run.stream?.pause();
    run.playout?.setPaused(true);
    this.medium.rest();
    say("Paused.");
    this.refresh();
    this.wake();
  }

  /** @param {Run} run */
  resume(run) {
    const left = run.target - run.shown;
    const isThere = run.isBeginning || (run.stream && !run.stream.isClosed);
    if (!isThere) return this.reconnect(run, left || this.wanted);
    this.send(run);
  }

  /** Asks for all that is wanted. @param {Run} run */
  send(run) {
    this.forgetScores();
    run.isPaused = false;
    run.temperatures = this.temperatures;
    run.stream?.want(run.target - run.shownBefore);
    run.playout?.setPaused(false);
    if (run.stream?.isLost) say("Not connected: it goes on once the service answers.", true);
    else say("Going on …");
    this.refresh();
  }

  /** @param {Run} run */
  extend(run) {
    if (!run.stream || run.stream.isClosed) return this.reconnect(run, this.wanted);
    run.target = Math.min(run.target + this.wanted, run.limit);
    this.medium.expect(run.target);
    this.send(run);
  }

  /** Its session has ended: another one goes on from what is shown. @param {Run} run @param {number} count */
  reconnect(run, count) {
    run.playout?.stop();
    const beginnings = Array.from({ length: run.rows }, (_, row) =>
      this.lastOf(this.medium.sequence(row)),
    );
    return this.connect(run, { beginnings }, count);
  }

  /** @param {Run} run @param {ServiceError} error */
  fail(run, error) {
    if (this.run !== run) return;
    if (error.status === GONE && run.isGoing && run.stream) {
      this.reconnect(run, run.target - run.shown);
      return;
    }
    run.playout?.stop();
    if (error.status === GONE) return; // while nothing goes on: the next Continue begins another one
    if (error.status === 0) setConnection("bad");
    run.isPaused = true;
    run.stream = null;
    const why = error.status === TOO_LARGE ? TOO_LARGE_TEXT : error.message;
    say(`${why}.`.replace(/([.?!])\.$/, "$1"), true);
    this.refresh();
  }

  /** Ends what goes on; what was made stays. */
  stop() {
    const { run } = this;
    if (!run) return;
    this.forgetScores();
    run.isOver = true;
    run.stream?.close();
    run.playout?.stop();
    this.run = null;
  }

  /** A person goes on, or something else is given. */
  settle() {
    const hadRun = Boolean(this.run);
    this.stop();
    this.hideReconstruction();
    say(hadRun ? this.medium.settle() : "");
    this.refresh();
  }

  /** @param {number} row */
  keep(row) {
    this.stop();
    this.medium.keep(row);
    say("Kept: it is the beginning now.");
    this.refresh();
    this.focusPad();
    this.wake();
  }

  undo() {
    if (this.run) {
      this.stop();
      this.medium.dropMade();
      say("The continuation is gone.");
    } else {
      say(this.medium.undo());
    }
    this.changed();
  }

  clear() {
    this.stop();
    this.medium.clear();
    say("Cleared.");
    this.changed();
  }

  changed() {
    this.hideReconstruction();
    this.refresh();
    this.wake();
  }

  // Looking inside

  setUpWake() {
    const { layers } = this.model;
    const select = byId("layer");
    const add = (/** @type {string} */ value, /** @type {string} */ text) =>
      select.append(element("option", { value }, text));
    if (layers) {
      add("all", "All layers together");
      for (let l = layers; l >= 1; l--) {
        const place = l === 1 ? ", the lowest" : l === layers ? ", the highest" : "";
        add(String(l - 1), `Layer ${l}${place}`);
      }
    } else {
      byId("wake-label").textContent = "What surprised";
    }
    add("surprise", "Surprise (−log p)");
    byId("legend-bar").style.background = GRADIENT;
    byId("layers").hidden = !layers;
    byId("reconstruct").hidden = !layers; // what no latents remember is no reconstruction
    byId("wake").addEventListener("change", () => {
      byId("wake-panel").hidden = !byId("wake").checked;
      if (byId("wake").checked) this.wake();
      else this.forgetScores();
    });
    select.addEventListener("change", () => this.colour());
  }

  colourPlain() {
    for (let row = 0; row < (this.run?.rows ?? 1); row++)
      this.medium.colour(row, null, { low: 0, high: 1 });
  }

  /** What was scored is shown no longer. */
  forgetScores() {
    this.ticket = null;
    this.scores = [];
    this.colourPlain();
    for (const id of ["legend-low", "legend-high", "legend-about"]) byId(id).textContent = "";
    byId("layers").tBodies[0].replaceChildren();
  }

  /** Scores what is shown and colours it. */
  async wake() {
    if (!byId("wake").checked || this.run?.isGoing) return;
    const ticket = (this.ticket = {});
    const rows = this.run?.rows ?? 1;
    const scores = [];
    try {
      for (let row = 0; row < rows; row++) {
        const all = this.medium.sequence(row);
        const x = this.lastOf(all);
        if (!x.length) {
          if (!this.medium.isEmpty) say("That is too little to look at: give some more.");
          return this.forgetScores();
        }
        const score = await request("POST", "/api/score", { x, seed: this.seed });
        scores.push({ ...score, before: all.length - x.length });
      }
    } catch (error) {
      return say(/** @type {Error} */ (error).message, true);
    }
    if (this.ticket !== ticket || !byId("wake").checked) return;
    this.scores = scores;
    this.colour();
    this.tabulate();
  }

  colour() {
    const { scores } = this;
    if (!scores.length) return;
    const chosen = byId("layer").value;
    const values = scores.map((score) => {
      if (chosen === "surprise") return score.log_likelihood.map((/** @type {number} */ v) => -v);
      if (chosen === "all")
        return score.kl.map((/** @type {number[]} */ kl) => kl.reduce((a, b) => a + b, 0));
      return score.kl.map((/** @type {number[]} */ kl) => kl[Number(chosen)]);
    });
    const scale = scaleOf(values.flat());
    // What is before the part that was scored has no values.
    values.forEach((of, row) =>
      this.medium.colour(row, [...Array(scores[row].before), ...of], scale),
    );
    byId("legend-low").textContent = scale.low.toFixed(2);
    byId("legend-high").textContent = scale.high.toFixed(2);
    const what =
      chosen === "surprise"
        ? "How unexpected each step was"
        : "What the latents carry (KL) in each step";
    byId("legend-about").textContent =
      `${what}, from ${scale.low.toFixed(2)} to ${scale.high.toFixed(2)} nats${this.part(scores[0].before)}.` +
      (scores.length > 1 && this.model.layers ? " The numbers are of the first continuation." : "");
  }

  /** Where more is given than the service takes at once, the last part of it. @param {number[][]} steps */
  lastOf(steps) {
    return steps.slice(-this.model.limits.max_beginning);
  }

  /** Says so. @param {number} before steps that were left out */
  part(before) {
    return before ? `, of the last ${this.model.limits.max_beginning} steps alone` : "";
  }

  tabulate() {
    const body = byId("layers").tBodies[0];
    const rows = [];
    const { kl } = this.scores[0];
    for (let l = this.model.layers; l >= 1; l--) {
      const sum = kl.reduce(
        (/** @type {number} */ a, /** @type {number[]} */ b) => a + b[l - 1],
        0,
      );
      rows.push(
        element(
          "tr",
          {},
          element("th", { scope: "row" }, String(l)),
          element("td", {}, sum.toFixed(1)),
          element("td", {}, (sum / kl.length).toFixed(3)),
        ),
      );
    }
    body.replaceChildren(...rows);
  }

  async reconstruct() {
    const ticket = (this.rebuilt = {});
    say("Reconstructing …");
    try {
      const given = this.medium.given();
      if (!given.length) throw new Error("There is nothing to reconstruct yet.");
      const x = this.lastOf(given);
      const answer = await request("POST", "/api/reconstruct", {
        x,
        seed: this.seed,
        latent_temperature: this.temperatures.latent_temperature,
      });
      if (this.rebuilt !== ticket) return; // something else is given by now
      this.medium.showReconstruction(answer.x);
      say(`Reconstructed${this.part(given.length - x.length)}: it is shown below.`);
    } catch (error) {
      if (this.rebuilt === ticket) say(/** @type {Error} */ (error).message, true);
    }
  }

  hideReconstruction() {
    if (this.rebuilt) this.medium.hideReconstruction();
    this.rebuilt = null;
  }

  /** @param {import("./medium.js").Format} format */
  async download(format) {
    const facts = {
      dataset: this.model.dataset,
      seed: this.run?.seed ?? this.seed,
      temperatures: this.run?.temperatures ?? this.temperatures,
    };
    try {
      const files = [await format.make(facts)].flat();
      files.forEach((file, i) =>
        save(`continued${files.length > 1 ? `-${i + 1}` : ""}.${format.ending}`, file),
      );
    } catch (error) {
      say(/** @type {Error} */ (error).message, true);
    }
  }

  /** Looks now and then whether the service is there, while nothing else would show. */
  async ping() {
    let isThere = true;
    if (!document.hidden && !this.run?.isGoing) {
      isThere = await request("GET", "/api/status").then(
        () => true,
        (error) => error.status !== 0,
      );
      setConnection(isThere ? "good" : "bad");
    }
    setTimeout(() => this.ping(), isThere ? PING_MS : PING_LOST_MS);
  }
}

/** @param {string} text @param {boolean} [isBad] */
function say(text, isBad = false) {
  const status = byId("status");
  status.textContent = text;
  status.dataset.kind = isBad ? "bad" : "";
}

/** @param {"good" | "bad" | "wait"} state */
function setConnection(state) {
  byId("connection").dataset.state = state;
  byId("connection-text").textContent = {
    good: "connected",
    bad: "not connected",
    wait: "connecting",
  }[state];
}

async function start() {
  for (;;) {
    try {
      const model = await request("GET", "/api/model");
      setConnection("good");
      new App(model);
      return;
    } catch (error) {
      if (!(error instanceof ServiceError)) {
        say(/** @type {Error} */ (error).message, true);
        throw error;
      }
      setConnection("bad");
      say(error.message, true);
      await new Promise((resolve) => setTimeout(resolve, PING_LOST_MS));
    }
  }
}

start();
