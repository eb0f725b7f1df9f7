"""How a notebook shows a model: its layers, their parameters, its latents, what it can see."""

from typing import TYPE_CHECKING

from stcn_tf.support import markup

if TYPE_CHECKING:
    from stcn_tf.models.base import SequenceModel


def table(model: "SequenceModel") -> str:
    """The layers of a model as an HTML table, with its latents and receptive field above it.

    Args:
        model: built.
    """
    rows = [
        (layer.name, type(layer).__name__, f"{layer.count_params():,}") for layer in model.layers
    ]
    return markup.table(("layer", "kind", "parameters"), rows, "; ".join(facts(model)))


def facts(model: "SequenceModel") -> list[str]:
    """In words: the model's kind, size, latents, and how far it sees.

    Args:
        model: built.
    """
    sees = model.receptive_field
    told = [
        f"{model.name}: {model.count_params():,} parameters",
        "a step is predicted from "
        + ("all frames before it" if sees is None else f"the {sees:,} frames before it"),
    ]
    if not model.latent_sizes:
        return [*told, "no latents: the likelihood is exact"]
    fields = model.latent_receptive_fields
    for layer, units in enumerate(model.latent_sizes, start=1):
        frames = f" of {fields[layer - 1]:,} frames" if fields else ""
        told.append(f"z^{layer}{frames}: {units} units")
    return told
