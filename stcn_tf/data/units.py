"""In words, what likelihoods of records are measured in."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stcn_tf.data.card import DatasetCard


def likelihood_unit(card: "DatasetCard") -> str:
    """In words, what a log-likelihood of these records is measured in.

    Args:
        card: of the records.
    """
    return f"nats of {normalized(card)} values" if card.num_real else "nats"


def normalized(card: "DatasetCard") -> str:
    """In a word, how the real values of these records are normalised.

    Args:
        card: of the records.
    """
    kind = card.normalization.kind
    return "raw" if kind == "none" else f"{kind}-normalised"
