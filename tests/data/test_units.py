import dataclasses

import pytest

from stcn_tf.data.card import Modality, Normalization, read_card
from stcn_tf.data.units import likelihood_unit, normalized


@pytest.mark.parametrize(
    ("kind", "name"),
    [("channel", "channel-normalised"), ("vrnn", "vrnn-normalised"), ("none", "raw")],
)
def test_likelihoods_of_real_values_name_their_normalisation(tiny_records, kind, name):
    card = dataclasses.replace(
        read_card(tiny_records),
        normalization=Normalization(kind, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        modality=Modality("other"),
    )
    assert normalized(card) == name
    assert likelihood_unit(card) == f"nats of {name} values"


def test_likelihoods_of_binary_values_have_no_unit(tiny_images):
    assert likelihood_unit(read_card(tiny_images)) == "nats"
