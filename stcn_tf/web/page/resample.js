// @ts-check
/** From what a pointer draws to points as a pen in the records makes them. */

const FINE = 8; // pieces of a step

/**
 * Points a step apart on average, closer where the line bends: a hand slows down there. (Pointers
 * have other rates and speeds than the pens that recorded the data.)
 * @param {number[][]} points of one stroke, [x, y]
 * @param {number} step length
 * @returns {number[][]} of the same ends; a dot is one point
 */
export function resample(points, step) {
  const fine = smooth(evenly(points, step / FINE));
  if (fine.length < 2) return [points[0]];
  const times = [0];
  for (let i = 1; i < fine.length; i++) {
    const length = Math.hypot(fine[i][0] - fine[i - 1][0], fine[i][1] - fine[i - 1][1]);
    times.push(times[i - 1] + length / speedAt(fine, i));
  }
  const total = times[times.length - 1];
  const count = Math.max(1, Math.round(total / step));
  const result = [];
  for (let j = 0, i = 0; j <= count; j++) {
    const time = (total * j) / count;
    while (i < fine.length - 2 && times[i + 1] < time) i++;
    const share = times[i + 1] > times[i] ? (time - times[i]) / (times[i + 1] - times[i]) : 0;
    result.push(between(fine[i], fine[i + 1], Math.min(share, 1)));
  }
  return result;
}

/** @param {number[]} a @param {number[]} b @param {number} share */
function between(a, b, share) {
  return [a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])];
}

/** Points at equal distances along a line. @param {number[][]} points @param {number} distance */
function evenly(points, distance) {
  const result = [points[0]];
  let last = points[0];
  let left = distance;
  for (const point of points.slice(1)) {
    let length = Math.hypot(point[0] - last[0], point[1] - last[1]);
    while (length >= left) {
      last = between(last, point, left / length);
      result.push(last);
      length -= left;
      left = distance;
    }
    left -= length;
    last = point;
  }
  if (left < 0.5 * distance) result.push(last);
  return result;
}

/** Takes off the steps of a pointer's pixels. @param {number[][]} points */
function smooth(points) {
  for (let pass = 0; pass < FINE / 2; pass++) {
    points = points.map((point, i) => {
      const [before, after] = [points[i - 1], points[i + 1]];
      if (!before || !after) return point;
      return [0, 1].map((axis) => (before[axis] + 2 * point[axis] + after[axis]) / 4);
    });
  }
  return points;
}

/** Of a pen, 1 on a gentle bend. @param {number[][]} fine @param {number} i */
function speedAt(fine, i) {
  const half = FINE / 2;
  const [a, b, c] = [
    fine[Math.max(i - half, 0)],
    fine[i],
    fine[Math.min(i + half, fine.length - 1)],
  ];
  const turn = Math.abs(
    Math.atan2(
      (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0]),
      (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1]),
    ),
  );
  return Math.max(1.3 / (1 + 1.2 * turn), 0.4);
}
