// @ts-check
/** Elements, and canvases as sharp as the screen. */

/**
 * @param {string} tag
 * @param {Record<string, any>} [properties] of the element; `on` are listeners, `data` and `aria`
 *     attributes of these kinds
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function element(tag, properties = {}, ...children) {
  const { on = {}, data = {}, aria = {}, ...others } = properties;
  const made = Object.assign(document.createElement(tag), others);
  for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
  for (const [name, value] of Object.entries(data)) made.dataset[name] = value;
  for (const [name, value] of Object.entries(aria)) made.setAttribute(`aria-${name}`, value);
  made.append(...children);
  return made;
}

/**
 * What is shown of one sequence: a heading, what goes with it, and its canvas.
 * @param {string} label @param {string} title @param {HTMLCanvasElement} canvas
 * @param {...Node} controls
 * @returns {HTMLElement}
 */
export function view(label, title, canvas, ...controls) {
  const head = element("div", { className: "view-head" }, element("h3", {}, title), ...controls);
  return element("section", { className: "view", aria: { label } }, head, canvas);
}

/** @param {string} id @returns {any} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`there is no #${id}`);
  return found;
}

/**
 * Gives a canvas the pixels of its place and a context whose unit is that of the sheet.
 * @param {HTMLCanvasElement} canvas
 * @param {number} width @param {number} height
 */
export function sharp(canvas, width, height) {
  const ratio = Math.max(window.devicePixelRatio || 1, 1);
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.height = `${height}px`;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/**
 * Calls a function once in the next frame, however often it is asked to.
 * @param {() => void} draw
 */
export function inFrame(draw) {
  let isAsked = false;
  return () => {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => {
      isAsked = false;
      draw();
    });
  };
}
