"""What is to be known of a trained model by whoever uses it: a page in Markdown."""

from stcn_tf.data.units import likelihood_unit
from stcn_tf.flags import flag_lines
from stcn_tf.inference.grouping import UNKNOWN
from stcn_tf.models.base import SequenceModel
from stcn_tf.reporting.evaluated import Run, latest

_FEATURES_SHOWN = 8


def model_card(run: Run, model: SequenceModel, checkpoint: str, update: int, licence: str) -> str:
    """Writes the page.

    Args:
        run: of which the weights are.
        model: with these weights.
        checkpoint: "best" or "latest".
        update: after which they were written.
        licence: of the weights and of the data, in words; empty: not given.
    """
    card, config, status = run.directory.card, run.directory.config, run.status
    parts = [
        f"# {config.model.model} on {card.name}",
        f"A generative model of {_OF[card.modality.kind]}, from stcn_tf (Stochastic Temporal "
        "Convolutional Networks, Aksan and Hilliges, ICLR 2019). It predicts each step from those "
        "before it.",
        "## Values",
        _features(run),
        "## Model",
        f"{sum(int(variable.shape.num_elements()) for variable in model.weights):,} parameters; "
        f"latent units by layer, lowest first: {_numbers(model.latent_sizes) or 'none'}; past "
        f"steps that a prediction sees: {model.receptive_field or 'all'}; first steps that are "
        f"given and not predicted: {model.num_given_frames}. Settings that differ from the "
        "defaults of `python -m stcn_tf.train`:",
        _listed(f"`{line}`" for line in flag_lines(config)) or "none",
        "## Data",
        _data(run),
        "## Training",
        _listed(
            [
                f"weights: {checkpoint}, after {update:,} updates",
                f"seed: {config.training.seed}",
                f"processor hours: {_hours(status)}",
                f"commit: {run.commit}",
                f"versions: {run.versions or UNKNOWN}",
            ]
        ),
        "## How likely it finds data",
        f"In {likelihood_unit(card)} per sequence. A lower bound says that the log-likelihood is "
        "at least this; of models without latents it is the log-likelihood itself.",
        _listed(_likelihoods(run)) or "not known",
        "## Licence",
        licence or "Not given. Weights may be bound by the terms of the data they were trained on.",
        "## Limits",
        "It makes what resembles its data, mistakes and all, and of what is given only what lies "
        "within the steps that it sees. Its numbers are of data prepared and normalised like "
        "these; of others they say nothing.",
    ]
    return "\n\n".join(parts) + "\n"


_OF = {
    "handwriting": "handwriting, a step being the way to the next point of the pen",
    "audio": "sound, a step being a frame of samples",
    "image": "images, a step being a pixel, row by row from the top left",
    "other": "sequences",
}


def _features(run: Run) -> str:
    card = run.directory.card
    norm = card.normalization
    lines = [
        f"{feature.name}: {feature.meaning} ({feature.kind}, unit: {feature.unit}; normalised as "
        f"(value - {mean:.6g}) / {std:.6g})"
        for feature, mean, std in zip(card.features, norm.mean, norm.std, strict=True)
    ]
    if more := len(lines) - _FEATURES_SHOWN:
        lines = lines[:_FEATURES_SHOWN] + ([f"and {more} more, see dataset.json"] * (more > 0))
    return _listed(lines)


def _data(run: Run) -> str:
    card = run.directory.card
    if card.is_placeholder:
        return "Which records it was trained on is not known."
    splits = (
        f"{name}: {split.num_sequences:,} sequences, {split.num_steps:,} steps"
        for name, split in card.splits.items()
    )
    made = [f"made by `{card.command}`", f"checksum of the source: {card.source_sha256}"]
    return _listed([*made, *splits])


def _likelihoods(run: Run) -> list[str]:
    lines = []
    status = run.status
    if status is not None and status.best is not None:
        count = run.directory.config.training.evaluate_sequences
        which = f"the first {count} sequences of valid" if count else "valid"
        lines.append(
            f"{which}, while it trained: {status.best_of} {status.best:.1f}, after update "
            f"{status.best_update:,}"
        )
    for evaluated in latest(run.evaluations):
        for number in evaluated.numbers:
            error = "" if number.error is None else f" +- {number.error:.1f}"
            lines.append(
                f"{evaluated['split']}, {evaluated['num_sequences']:,} sequences: "
                f"{number.value:.1f}{error} ({number.kind}: {number.label})"
            )
    return lines


def _hours(status) -> str:
    known = status is not None and status.processor_hours is not None
    return f"{status.processor_hours:.2f}" if known else UNKNOWN


def _numbers(values) -> str:
    return ", ".join(map(str, values))


def _listed(lines) -> str:
    return "\n".join(f"- {line}" for line in lines)
