// @ts-check
/** The service, as the page speaks to it: requests, and streams that survive a lost connection. */

/** What the service says is wrong. */
export class ServiceError extends Error {
  /** @param {number} status of HTTP, 0: it was not reached  @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const UNREACHED = "The service does not answer. Is it still running?";

/**
 * Sends a request, gives the JSON of the answer.
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 * @returns {Promise<any>}
 */
export async function request(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      keepalive: method === "DELETE", // when the page is left, too
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body, shortened),
    });
  } catch {
    throw new ServiceError(0, UNREACHED);
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new ServiceError(response.status, answer.detail ?? `the service says ${response.status}`);
  }
  return answer;
}

/** As many digits as float32 has, which the model computes in. @param {string} _ @param {unknown} value */
function shortened(_, value) {
  const isLong = typeof value === "number" && !Number.isInteger(value);
  return isLong ? Number(Math.fround(value).toPrecision(9)) : value;
}

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 5000;

/**
 * @typedef {Object} Handlers
 * @property {(x: number[][][]) => void} steps the next steps, [rows][steps][features]
 * @property {() => void} lost the connection is lost, and is sought again
 * @property {() => void} regained
 * @property {(error: ServiceError) => void} failed it does not go on
 */

/** The steps of one session. */
export class Stream {
  /** @param {string} id of the session  @param {Handlers} handlers */
  constructor(id, handlers) {
    this.id = id;
    this.handlers = handlers;
    this.received = 0;
    this.have = 0;
    /** What the service must know, also after another connection. */
    this.wishes = { want: 0, pause: false };
    this.isClosed = this.isLost = false;
    this.wait = FIRST_WAIT_MS;
    this.connect(false);
  }

  /** @param {boolean} isAnew */
  connect(isAnew) {
    const url = new URL(`/api/sessions/${this.id}/stream?have=${this.have}`, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = (this.socket = new WebSocket(url));
    socket.onopen = () => {
      this.isLost = false;
      if (isAnew) this.handlers.regained();
      this.send(this.wishes);
    };
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type !== "steps") return;
      this.wait = FIRST_WAIT_MS;
      const known = this.received - message.first;
      const steps = message.x[0].length;
      if (known >= steps) return;
      this.received = message.first + steps;
      this.handlers.steps(message.x.map((/** @type {number[][]} */ row) => row.slice(known)));
    };
    socket.onclose = (event) => {
      if (this.isClosed || this.socket !== socket) return;
      if (event.code >= 4000) {
        this.isClosed = true;
        this.handlers.failed(new ServiceError(event.code - 4000, event.reason));
        return;
      }
      this.isLost = true;
      if (!isAnew || this.wait === FIRST_WAIT_MS) this.handlers.lost();
      this.timer = setTimeout(() => this.connect(true), this.wait);
      this.wait = Math.min(2 * this.wait, LONGEST_WAIT_MS);
    };
  }

  /** @param {object} message */
  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** Asks for so many steps in all. @param {number} steps */
  want(steps) {
    this.wishes.want = steps;
    this.wishes.pause = false;
    this.send(this.wishes);
  }

  pause() {
    this.wishes.pause = true;
    this.send({ pause: true });
  }

  /** @param {object} temperatures of steps that are not made yet */
  setTemperatures(temperatures) {
    Object.assign(this.wishes, { temperatures });
    this.send({ temperatures });
  }

  /** Says how many steps have been shown: the service goes only so far ahead. @param {number} steps */
  acknowledge(steps) {
    this.have = steps;
    this.send({ have: steps });
  }

  /** Ends the session. */
  close() {
    if (this.isClosed) return;
    this.isClosed = true;
    clearTimeout(this.timer);
    this.socket?.close();
    request("DELETE", `/api/sessions/${this.id}`).catch(() => {}); // it ends by itself, too
  }
}
