"""An evaluation as a table for people and as evaluation.json for programs.

A log-likelihood of real values depends on their scale, so that every number here says its unit and
its normalisation, and likelihoods are given in the records' raw units, too.
"""

import json
import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from stcn_tf.data.records import DatasetCard, group_alike
from stcn_tf.inference.evaluation import Evaluation
from stcn_tf.models.base import SequenceModel
from stcn_tf.support.files import replacing_file


class _Row(NamedTuple):
    """A row of the table."""

    name: str
    values: np.ndarray  # [sequences], nats
    is_likelihood: bool = True  # depends on the scale of x, and has bits per dimension


def likelihood_unit(card: DatasetCard) -> str:
    """In words, what a log-likelihood of these records is measured in."""
    return f"nats of {normalized(card)} values" if card.num_real else "nats"


def normalized(card: DatasetCard) -> str:
    """In a word, how the real values of these records are normalised."""
    kind = card.normalization.kind
    return "raw" if kind == "none" else f"{kind}-normalised"


def summary(
    evaluation: Evaluation, model: SequenceModel, card: DatasetCard, about: dict[str, Any]
) -> dict[str, Any]:
    """What evaluation.json holds.

    Args:
        evaluation: of one split.
        model: the model that was evaluated.
        card: of the records.
        about: what was evaluated and how: run, model, posterior_draws, posterior_scale (None
            where the model has no such setting), released_floors, trained_with (those of the three
            that were others in training), checkpoint, update, split, seed, bound.

    Returns:
        A JSON object: `about`, units and normalisation, counts, and for each row of the table
        `per_sequence` and `per_step` with their standard errors over sequences; for likelihoods
        also `bits_per_dimension` (of the features of the scored steps) and the same three under
        `raw_units`.
    """
    norm = card.normalization
    # Densities of x = (raw - mean) / std are those of raw values times the product of the stds.
    nats_per_step = sum(math.log(std) for std in norm.std)
    real = card.features[: card.num_real]
    units = group_alike([feature.name for feature in real], [feature.unit for feature in real])
    units = ", ".join(f"{names}: {unit}" for names, unit in units)
    rows = {}
    for key, row in _rows(evaluation, model):
        rows[key] = {"name": row.name, **_numbers(evaluation, row, card.num_features)}
        if row.is_likelihood and card.num_real:
            raw = row._replace(values=row.values - nats_per_step * evaluation.num_steps)
            rows[key]["raw_units"] = _numbers(evaluation, raw, card.num_features)
    return {
        **about,
        "dataset": card.name,
        "source_sha256": card.source_sha256,
        "unit": likelihood_unit(card),
        "raw_unit": f"nats of values in raw units ({units})" if card.num_real else None,
        "normalization": {
            "kind": norm.kind,
            "features": [feature.name for feature in card.features],
            "mean": list(norm.mean),
            "std": list(norm.std),
        },
        "num_samples": evaluation.num_samples,
        "num_given_frames": model.num_given_frames,
        "num_sequences": len(evaluation.num_steps),
        "num_steps": int(evaluation.num_steps.sum()),
        "active_units": list(evaluation.active_units),
        "terms": rows,
    }


def table(content: dict[str, Any]) -> str:
    """The same as lines of text.

    Args:
        content: what `summary` returned.
    """
    norm, terms = content["normalization"], content["terms"]
    lines = [
        f"{content['run']}: {content['model']}, checkpoint {content['checkpoint']}, "
        f"after {content['update']:,} updates",
        f"{content['dataset']}, split {content['split']}: {content['num_sequences']:,} sequences, "
        f"{content['num_steps']:,} scored steps"
        + (" (the first frame of each is given)" if content["num_given_frames"] else ""),
    ]
    if content["active_units"]:
        lines[0] += f"; posterior draws {content['posterior_draws']}, {content['num_samples']} of z"
    if content["released_floors"]:
        lines.append(
            "with the floors of the released program: densities do not quite integrate to 1, and "
            "the KL may be too small; --noreleased_floors scores without them"
        )
    for name, trained in content["trained_with"].items():
        lines.append(f"scored with {name} {content[name]}, trained with {trained}")
    width = max(len(term["name"]) for term in terms.values())

    def block(unit: str, numbers: dict[str, dict[str, Any]]) -> None:
        heading = f"{'per sequence':>25}  {'per step':>21}  {'bits/dimension':>14}"
        lines.extend(["", f"{unit}:", f"{'':{width}}  {heading}"])
        for key, term in numbers.items():
            whole, whole_error = term["per_sequence"], term["per_sequence_standard_error"]
            step, step_error = term["per_step"], term["per_step_standard_error"]
            line = (
                f"{terms[key]['name']:{width}}  {whole:13.3f} +- {whole_error:8.3f}  "
                f"{step:10.5f} +- {step_error:.5f}"
            )
            if "bits_per_dimension" in term:
                line += f"  {term['bits_per_dimension']:14.5f}"
            lines.append(line)

    values = [
        f"({mean:.6g}, {std:.6g})" for mean, std in zip(norm["mean"], norm["std"], strict=True)
    ]
    scales = ", ".join(f"{names} {value}" for names, value in group_alike(norm["features"], values))
    block(
        content["unit"] + (f", (mean, std) of {scales}" if content["raw_unit"] else ""),
        terms,
    )
    if content["raw_unit"]:
        raw = {key: term["raw_units"] for key, term in terms.items() if "raw_units" in term}
        block(content["raw_unit"], raw)
    lines += ["", "+-: standard error over sequences"]
    if content["active_units"]:
        active = ", ".join(str(units) for units in content["active_units"])
        lines[-1] += f"; active units of layer 1, 2, ...: {active}"
    return "\n".join(lines)


def write(content: dict[str, Any], path: str | os.PathLike) -> None:
    """Writes evaluation.json, whole or not at all."""
    # A single sequence has no standard error: null, because JSON has finite numbers only.
    text = json.dumps(_finite(content), indent=1, allow_nan=False)
    with replacing_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _numbers(evaluation: Evaluation, row: _Row, num_features: int) -> dict[str, float]:
    values = row.values
    numbers = {
        "per_sequence": evaluation.per_sequence(values),
        "per_sequence_standard_error": evaluation.standard_error(values),
        "per_step": evaluation.per_step(values),
        "per_step_standard_error": evaluation.per_step_standard_error(values),
    }
    if row.is_likelihood:
        numbers["bits_per_dimension"] = -numbers["per_step"] / (num_features * math.log(2))
    return numbers


def _rows(evaluation: Evaluation, model: SequenceModel) -> Iterator[tuple[str, _Row]]:
    """The rows of the table by their keys in evaluation.json."""
    floors = " with the released floors" if model.observation.released_floors else ""
    if not model.latent_sizes:
        name = f"log-likelihood{floors or ' (exact)'}"
        yield "log_likelihood", _Row(name, evaluation.log_likelihood)
        return
    if model.is_released_objective_a_bound:
        yield "elbo", _Row(f"ELBO{floors}", evaluation.elbo)
    else:
        name = "released objective (not a lower bound)"
        yield "released_objective", _Row(name, evaluation.released_objective)
        name = f"ELBO (KL_1 + 2 * the rest{floors or ': a lower bound'})"
        yield "elbo", _Row(name, evaluation.elbo)
    samples = evaluation.num_samples
    if evaluation.importance_weighted is not None:
        weights = "sequence" if model.do_latents_reach_across_steps else "step"
        over = "" if model.is_released_objective_a_bound else " over both draws"
        name = f"importance-weighted bound{over} (K = {samples}, per {weights})"
        yield "importance_weighted", _Row(name, evaluation.importance_weighted)
    if evaluation.fivo is not None:
        yield "fivo", _Row(f"FIVO bound (K = {samples})", evaluation.fivo)
    yield "reconstruction", _Row("reconstruction", evaluation.log_likelihood)
    yield "kl", _Row("KL", evaluation.kl.sum(axis=1), is_likelihood=False)
    for layer, kl in enumerate(evaluation.kl.T, start=1):
        yield f"kl_of_layer_{layer}", _Row(f"KL of layer {layer}", kl, is_likelihood=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
