// @ts-check
/** Drawing on a canvas: with one pointer at a time, or with the arrow keys. */

const PRIMARY = 0;
const ERASER = 5;

/** How each arrow key moves, to the right and downwards. @type {Record<string, number[]>} */
export const ARROWS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

/**
 * @typedef {Object} Drawing
 * @property {(at: number[], isEraser: boolean) => void} down a line begins; in pixels of the sheet
 *     from the corner of the canvas; with the other end of a pen, or not
 * @property {(points: number[][]) => void} move it goes on
 * @property {() => void} up it ends
 * @property {() => void} drop it was none: the hand lay on the canvas before the pen came
 */

/**
 * Follows the pointer that draws. Further fingers, or a palm beside the pen, draw nothing.
 * @param {HTMLCanvasElement} canvas @param {Drawing} drawing
 */
export function followPointer(canvas, { down, move, up, drop }) {
  /** @type {PointerEvent | null} what began the line */
  let pointer = null;
  const at = (/** @type {PointerEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const end = (/** @type {PointerEvent} */ event) => {
    if (event.pointerId !== pointer?.pointerId) return;
    pointer = null;
    up();
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== PRIMARY && event.button !== ERASER) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    if (pointer && (pointer.pointerType !== "touch" || event.pointerType !== "pen")) return;
    if (pointer) drop();
    pointer = event;
    canvas.setPointerCapture(event.pointerId);
    down(at(event), event.button === ERASER);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer?.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    move((events.length ? events : [event]).map(at));
  });
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
}
