"""An evaluation as a table for people and as evaluation.json for programs."""

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from stcn_tf.data.records import DatasetCard
from stcn_tf.evaluation import Evaluation
from stcn_tf.files import replacing_file
from stcn_tf.models.base import SequenceModel

_UNIT = "nats of the normalised values"


def summary(
    evaluation: Evaluation, model: SequenceModel, card: DatasetCard, about: dict[str, Any]
) -> dict[str, Any]:
    """What evaluation.json holds.

    Args:
        evaluation: of one split.
        model: the model that was evaluated.
        card: of the records.
        about: what was evaluated: run, model, checkpoint, update, split, seed.

    Returns:
        A JSON object: `about`, units and normalisation, counts, and for each row of the table
        `per_sequence` and `per_step` with their standard errors over sequences.
    """
    return {
        **about,
        "dataset": card.name,
        "source_sha256": card.source_sha256,
        "unit": _UNIT,
        "normalization": {
            "kind": card.normalization.kind,
            "features": [feature.name for feature in card.features],
            "mean": list(card.normalization.mean),
            "std": list(card.normalization.std),
        },
        "posterior_samples": 1,
        "num_sequences": len(evaluation.lengths),
        "num_steps": int(evaluation.lengths.sum()),
        "active_units": list(evaluation.active_units),
        "terms": {
            name: {
                "per_sequence": evaluation.per_sequence(values),
                "per_sequence_standard_error": evaluation.standard_error(values),
                "per_step": evaluation.per_step(values),
                "per_step_standard_error": evaluation.per_step_standard_error(values),
            }
            for name, values in _terms(evaluation, model)
        },
    }


def table(content: dict[str, Any]) -> str:
    """The same as lines of text.

    Args:
        content: what `summary` returned.
    """
    norm = content["normalization"]
    scales = ", ".join(
        f"{name} ({mean:.6g}, {std:.6g})"
        for name, mean, std in zip(norm["features"], norm["mean"], norm["std"], strict=True)
    )
    width = max(len(name) for name in content["terms"])
    lines = [
        f"{content['run']}: {content['model']}, checkpoint {content['checkpoint']}, "
        f"after {content['update']:,} updates",
        f"{content['dataset']}, split {content['split']}: {content['num_sequences']:,} sequences, "
        f"{content['num_steps']:,} steps",
        f"unit: {content['unit']}, one posterior draw; normalisation {norm['kind']}, "
        f"(mean, std) of {scales}",
        "",
        f"{'':{width}}  {'per sequence':>24}  {'per step':>20}",
    ]
    for name, term in content["terms"].items():
        whole, whole_error = term["per_sequence"], term["per_sequence_standard_error"]
        step, step_error = term["per_step"], term["per_step_standard_error"]
        lines.append(
            f"{name:{width}}  {whole:12.3f} +- {whole_error:8.3f}  {step:10.5f} +- {step_error:.5f}"
        )
    active = ", ".join(str(units) for units in content["active_units"])
    lines += ["", f"+-: standard error over sequences; active units of layer 1, 2, ...: {active}"]
    return "\n".join(lines)


def write(content: dict[str, Any], path: str | os.PathLike) -> None:
    """Writes evaluation.json, whole or not at all."""
    # A single sequence has no standard error: null, because NaN is no JSON.
    text = json.dumps(_without_nan(content), indent=1, allow_nan=False)
    with replacing_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _terms(evaluation: Evaluation, model: SequenceModel) -> Iterator[tuple[str, np.ndarray]]:
    """The rows of the table: name and value of each sequence."""
    yield "ELBO", evaluation.elbo
    if not model.is_released_objective_a_bound:
        yield "released objective (not a lower bound)", evaluation.released_objective
    yield "reconstruction", evaluation.log_likelihood
    yield "KL", evaluation.kl.sum(axis=1)
    for layer, kl in enumerate(evaluation.kl.T, start=1):
        yield f"KL of layer {layer}", kl


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, float) and np.isnan(content):
        return None
    return content
