"""An evaluation as a table for people and as JSON for programs.

A log-likelihood of real values depends on their scale, so that every number here says its unit and
its normalisation, and likelihoods are given in the records' raw units, too.
"""

import csv
import json
import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from stcn_tf.data.card import DatasetCard, group_alike
from stcn_tf.data.units import likelihood_unit
from stcn_tf.inference.evaluation import ACTIVE_UNIT_NATS, TOLD_AT_FLOOR, Evaluation
from stcn_tf.inference.grouping import averages_head, averages_line
from stcn_tf.models.base import SequenceModel
from stcn_tf.support.files import replacing_file


class _Row(NamedTuple):
    """A row of the table."""

    name: str
    values: np.ndarray  # [sequences], nats
    is_likelihood: bool = True  # depends on the scale of x, and has bits per dimension


def summary(
    evaluation: Evaluation, model: SequenceModel, card: DatasetCard, about: dict[str, Any]
) -> dict[str, Any]:
    """What the file of an evaluation holds.

    Args:
        evaluation: of one split.
        model: the model that was evaluated.
        card: of the records.
        about: what was evaluated and how: run, model, posterior_draws, posterior_scale (None
            where the model has no such setting), released_floors, trained_with (those of the three
            that were others in training), checkpoint, update, split, seed, bound, given_frames and
            piece (see `Evaluator`).

    Returns:
        A JSON object: `about`, units and normalisation, counts, and for each row of the table its
        `unit`, `per_sequence` and `per_step` with their standard errors (over groups of
        sequences, where the records know them: `standard_error_over`, `num_groups`); for
        likelihoods of real values the same under `raw_units`. `bits_per_dimension` (of the features
        of the scored steps) stand in `raw_units`, and beside likelihoods that have no scale: of
        densities of normalised values they would be no length of a code.
    """
    norm, grouping = card.normalization, evaluation.grouping
    return {
        **about,
        "dataset": card.name,
        "source_sha256": card.source_sha256,
        "unit": likelihood_unit(card),
        "raw_unit": _raw_unit(card) if card.num_real else None,
        "normalization": {
            "kind": norm.kind,
            "features": [feature.name for feature in card.features],
            "units": [feature.unit for feature in card.features],
            "mean": list(norm.mean),
            "std": list(norm.std),
        },
        "num_samples": evaluation.num_samples,
        "num_given_frames": model.num_given_frames,
        "num_sequences": len(evaluation.num_steps),
        "num_groups": grouping.num_groups if grouping.are_grouped else None,
        "standard_error_over": "groups" if grouping.are_grouped else "sequences",
        "num_steps": int(evaluation.num_steps.sum()),
        "active_units": list(evaluation.active_units),
        "sigma_at_floor": evaluation.share_at_floor,
        "active_unit_nats_per_step": ACTIVE_UNIT_NATS,
        "terms": {key: _term(evaluation, row, card) for key, row in _rows(evaluation, model)},
    }


def table(content: dict[str, Any]) -> str:
    """The same as lines of text.

    Args:
        content: what `summary` returned.
    """
    lines = _what_was_evaluated(content)
    width = max(len(term["name"]) for term in content["terms"].values())
    for heading, rows in _blocks(content).items():
        lines += ["", f"{heading}:", *_block(rows, width)]
    lines += ["", f"+-: standard error over {content['standard_error_over']}"]
    if content["num_groups"]:
        lines[-1] += f" ({content['num_groups']:,} of them: forms, speakers or the like)"
    if content["active_units"]:
        active = ", ".join(str(units) for units in content["active_units"])
        threshold = content["active_unit_nats_per_step"]
        lines[-1] += (
            f"; active units (KL above {threshold:g} nats per step) of layer 1, 2, ...: {active}"
        )
    if content["sigma_at_floor"]["observation"] > TOLD_AT_FLOOR:
        lines.append(
            f"{content['sigma_at_floor']['observation']:.0%} of the observation's sigmas are "
            "0.001 or less: this likelihood is of narrow densities, not of good predictions"
        )
    return "\n".join(lines)


def write(content: dict[str, Any], path: str | os.PathLike) -> None:
    """Writes the file of an evaluation, whole or not at all."""
    # A single sequence has no standard error: null, because JSON has finite numbers only.
    text = json.dumps(_finite(content), indent=1, allow_nan=False)
    with replacing_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def write_sequences(evaluation: Evaluation, model: SequenceModel, path: str | os.PathLike) -> None:
    """Writes the terms of each sequence as CSV, whole or not at all.

    The columns are the name, the group (empty where the records know none), the scored steps, and
    each row of the table by its key in `summary`, in nats of the normalised values. Two models that
    scored the same records are compared by the differences of a column, whose standard error is
    smaller than that of either.
    """
    rows = dict(_rows(evaluation, model))
    with replacing_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sequence", "group", "steps", *rows])
        columns = [evaluation.ids, evaluation.groups, evaluation.num_steps.tolist()]
        columns += [row.values.tolist() for row in rows.values()]
        writer.writerows(zip(*columns, strict=True))


def _raw_unit(card: DatasetCard) -> str:
    """What a density of the values as they were before normalisation is measured in."""
    real = card.features[: card.num_real]
    units = group_alike([feature.name for feature in real], [feature.unit for feature in real])
    return f"nats of values in raw units ({', '.join(f'{names}: {unit}' for names, unit in units)})"


def _term(evaluation: Evaluation, row: _Row, card: DatasetCard) -> dict[str, Any]:
    """What the file holds of a row."""
    numbers = _numbers(evaluation, row.values)
    if not row.is_likelihood:  # a KL does not depend on the scale of x
        return {"name": row.name, "unit": "nats", **numbers}
    term = {"name": row.name, "unit": likelihood_unit(card), **numbers}
    if not card.num_real:
        return {**term, "bits_per_dimension": _bits_per_dimension(numbers, card)}
    # Densities of x = (raw - mean) / std are those of raw values times the product of the stds.
    nats_per_step = sum(math.log(std) for std in card.normalization.std)
    raw = _numbers(evaluation, row.values - nats_per_step * evaluation.num_steps)
    bits = _bits_per_dimension(raw, card)
    return {**term, "raw_units": {"unit": _raw_unit(card), **raw, "bits_per_dimension": bits}}


def _numbers(evaluation: Evaluation, values: np.ndarray) -> dict[str, float]:
    """Averages of values [sequences], with their standard errors."""
    return {
        "per_sequence": evaluation.per_sequence(values),
        "per_sequence_standard_error": evaluation.standard_error(values),
        "per_step": evaluation.per_step(values),
        "per_step_standard_error": evaluation.per_step_standard_error(values),
    }


def _bits_per_dimension(numbers: dict[str, float], card: DatasetCard) -> float:
    return -numbers["per_step"] / (card.num_features * math.log(2))


def _rows(evaluation: Evaluation, model: SequenceModel) -> Iterator[tuple[str, _Row]]:
    """The rows of the table by their keys in the file."""
    floors = "" if model.observation.is_density else " with the released floors"
    if not model.latent_sizes:
        name = f"log-likelihood{floors or ' (exact)'}"
        yield "log_likelihood", _Row(name, evaluation.log_likelihood)
        return
    if model.is_objective_a_bound:
        yield "elbo", _Row(f"ELBO{floors}", evaluation.elbo)
    else:
        name = "released objective (not a lower bound)"
        yield "released_objective", _Row(name, evaluation.objective)
        name = f"ELBO (KL_1 + 2 * the rest{floors or ': a lower bound'})"
        yield "elbo", _Row(name, evaluation.elbo)
    samples = evaluation.num_samples
    if evaluation.importance_weighted is not None:
        weights = "sequence" if model.do_latents_reach_across_steps else "step"
        over = "" if model.is_objective_a_bound else " over both draws"
        name = f"importance-weighted bound{over} (K = {samples}, per {weights})"
        yield "importance_weighted", _Row(name, evaluation.importance_weighted)
    if evaluation.fivo is not None:
        yield "fivo", _Row(f"FIVO bound (K = {samples})", evaluation.fivo)
    yield "reconstruction", _Row("reconstruction", evaluation.log_likelihood)
    yield "kl", _Row("KL", evaluation.kl.sum(axis=1), is_likelihood=False)
    for layer, kl in enumerate(evaluation.kl.T, start=1):
        yield f"kl_of_layer_{layer}", _Row(f"KL of layer {layer}", kl, is_likelihood=False)


def _what_was_evaluated(content: dict[str, Any]) -> list[str]:
    """The lines above the numbers."""
    lines = [
        f"{content['run']}: {content['model']}, checkpoint {content['checkpoint']}, "
        f"after {content['update']:,} updates",
        f"{content['dataset']}, split {content['split']}: {content['num_sequences']:,} sequences, "
        f"{content['num_steps']:,} scored steps{_conventions(content)}",
    ]
    if content["active_units"]:
        draws = content["posterior_draws"]  # None where the model has one kind alone
        lines[0] += (
            f"; {f'posterior draws {draws}, ' if draws else ''}{content['num_samples']} of z"
        )
    if content["released_floors"]:
        lines.append(
            "with the floors of the released program: densities do not quite integrate to 1, and "
            "the KL may be too small; --noreleased_floors scores without them"
        )
    for name, trained in content["trained_with"].items():
        lines.append(f"scored with {name} {content[name]}, trained with {trained}")
    return lines


def _conventions(content: dict[str, Any]) -> str:
    """What is not scored as everywhere else, in parentheses."""
    given = max(content["num_given_frames"], content["given_frames"])
    piece = content["piece"]
    notes = []
    if piece:
        notes.append(f"in pieces of {piece} frames, each by itself")
    if given:
        frames = "frame of each is" if given == 1 else f"{given} frames of each are"
        notes.append(f"the first {frames} given")
    return f" ({', '.join(notes)})" if notes else ""


def _blocks(content: dict[str, Any]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """The rows of the table, (name, numbers) each, by what stands above those of one unit."""
    terms = content["terms"].values()
    rows = [(term["name"], term) for term in terms]
    rows += [(term["name"], term["raw_units"]) for term in terms if "raw_units" in term]
    # Likelihoods as they are, in raw units, and last what has no scale.
    blocks = {unit: [] for unit in (content["unit"], content["raw_unit"], "nats") if unit}
    for name, numbers in rows:
        blocks[numbers["unit"]].append((name, numbers))
    scale = f", {_scale(content['normalization'])}" if content["raw_unit"] else ""
    return {
        f"{unit}{scale if unit == content['unit'] else ''}": rows
        for unit, rows in blocks.items()
        if rows
    }


def _scale(norm: dict[str, Any]) -> str:
    """In words, what was subtracted from each feature and what it was divided by."""
    pairs = zip(norm["mean"], norm["std"], strict=True)
    values = [f"({mean:.6g}, {std:.6g})" for mean, std in pairs]
    scales = group_alike(norm["features"], values)
    return "(mean, std) in raw units: " + ", ".join(f"{names} {value}" for names, value in scales)


def _block(rows: list[tuple[str, dict[str, Any]]], width: int) -> list[str]:
    """Lines of (name, numbers) rows of one unit, and the names of the columns above them."""
    lines = [averages_head(width)]
    if any("bits_per_dimension" in numbers for _, numbers in rows):
        lines[0] += f"  {'bits/dimension':>14}"
    for name, numbers in rows:
        whole, step = (
            (numbers[of], numbers[f"{of}_standard_error"]) for of in ("per_sequence", "per_step")
        )
        line = averages_line(name, width, whole, step)
        if "bits_per_dimension" in numbers:
            line += f"  {numbers['bits_per_dimension']:14.5f}"
        lines.append(line)
    return lines


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
