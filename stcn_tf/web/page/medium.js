// @ts-check
/**
 * What goes with one kind of sequences: ink.js, audio.js and image.js have a class each, with the
 * members that are written down here; app.js knows no more of them.
 */

import { AudioMedium } from "./audio.js";
import { ImageMedium } from "./image.js";
import { InkMedium } from "./ink.js";

/**
 * @typedef {number[]} Step one number for each feature, raw units
 *
 * @typedef {Object} Format of a download
 * @property {string} label
 * @property {string} ending of the file's name
 * @property {(facts: object) => Blob | Blob[] | Promise<Blob>} make a file of all that is shown, or
 *     one for each continuation
 *
 * @typedef {Object} Hooks
 * @property {() => void} changed the beginning is another one now
 * @property {(row: number) => void} keep a continuation becomes part of the beginning
 * @property {(text: string, isBad?: boolean) => void} say
 * @property {() => void} play what is given is made by the person now: nothing may go on meanwhile
 *
 * @typedef {Object} Medium
 * @property {string} title of the pad
 * @property {string} hint
 * @property {string} keyboard how it is used without a pointer
 * @property {Record<string, string>} labels of the temperatures that make sense: temperature,
 *     binary_temperature
 * @property {Record<string, number>} temperatures to begin with
 * @property {{least: number, most: number, step: number, usual: number}} length of continuations,
 *     in steps
 * @property {{least: number, most: number, step: number, usual: number}} pace in steps a second
 * @property {(steps: number) => string} lengthText
 * @property {Format[]} formats
 * @property {boolean} isEmpty whether nothing is given
 * @property {boolean} canUndo whether there is something to take back
 * @property {boolean} isWhole whether sequences are complete at some length
 * @property {() => Step[]} beginning throws an Error that says what is missing
 * @property {boolean} canBegin whether there is something to go on from
 * @property {() => string} undo takes back what was given last, and tells what is there now
 * @property {() => void} clear
 * @property {() => Step[]} given the same to look at: all that is given, whatever is missing
 * @property {(rows: number, isAlone: boolean) => void} begin shows so many continuations, of no step
 *     yet, or of what comes from nothing
 * @property {(steps: number) => void} expect so many steps will be made in all
 * @property {(row: number, step: Step) => void} push
 * @property {() => void} rest nothing more comes for now
 * @property {() => string} settle a person goes on: the first continuation is kept, or all are
 *     removed, which is told
 * @property {() => void} dropMade removes the continuations
 * @property {(row: number) => void} keep makes a continuation part of the beginning
 * @property {(row: number) => Step[]} sequence the beginning and what was made
 * @property {(row: number, values: number[] | null, scale: {low: number, high: number}) => void}
 *     colour one value for each step
 * @property {(x: Step[]) => void} showReconstruction
 * @property {() => void} hideReconstruction
 */

const KINDS = { handwriting: InkMedium, audio: AudioMedium, image: ImageMedium };

/**
 * @param {any} model as GET /api/model tells
 * @param {Hooks} hooks
 * @returns {Medium}
 */
export function mediumOf(model, hooks) {
  const kind = KINDS[/** @type {keyof typeof KINDS} */ (model.modality.kind)];
  if (!kind)
    throw new Error(`There is no page for sequences of the kind “${model.modality.kind}”.`);
  return new kind(model, hooks);
}
