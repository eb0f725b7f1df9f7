import keras
import numpy as np
import pytest

from stcn_tf.layers import CausalConv, SequenceLayer, WavenetBlock, serial
from tests.contract import check_layer, outputs_of, randomize

BATCH, TIME, CHANNELS, FILTERS, LAYERS = 2, 11, 3, 7, 4
FLOAT32 = keras.DTypePolicy("float32")


class Chain(SequenceLayer):
    """Output layers as a layer, to hold them against its contract."""

    def __init__(self, kind, num_layers, kernel_size, **kwargs):
        super().__init__(**kwargs)
        self._config = {"kind": kind, "num_layers": num_layers, "kernel_size": kernel_size}
        self.chain = serial.make_output_layers(
            kind, num_layers, FILTERS, kernel_size, self.dtype_policy
        )

    def build(self, input_shape):
        assert serial.build(self.chain, input_shape[-1]) == FILTERS

    def initial_state(self, batch_size):
        return serial.initial_state(self.chain, batch_size)

    def call(self, inputs, state, lengths=None):
        return serial.run(self.chain, inputs, state, lengths)

    def get_config(self):
        return {**super().get_config(), **self._config}


@pytest.fixture
def make():
    def make(kind, kernel_size=2, num_layers=LAYERS):
        layers = serial.make_output_layers(kind, num_layers, FILTERS, kernel_size, FLOAT32)
        assert serial.build(layers, CHANNELS) == (FILTERS if num_layers else CHANNELS)
        return [randomize(layer, seed) for seed, layer in enumerate(layers)]

    return make


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((BATCH, TIME, CHANNELS)).astype(np.float32)


def _run(layers, x):
    return serial.run(layers, x, serial.initial_state(layers, BATCH))[0]


@pytest.mark.parametrize(
    ("kind", "kernel_size", "reach"), [("conv1x1", 2, 1), ("wavenet", 2, 3), ("wavenet", 3, 5)]
)
def test_they_are_a_layer(kind, kernel_size, reach):
    check_layer(Chain(kind, 2, kernel_size, name="chain"), CHANNELS, receptive_field=reach)


def test_1x1_layers_are_products_with_relu(make, x):
    layers = make("conv1x1")
    assert [type(layer) for layer in layers] == [CausalConv] * LAYERS
    assert [layer.memory for layer in layers] == [0] * LAYERS
    expected = x
    for layer in layers:
        expected = np.maximum(expected @ layer.kernel.numpy()[0] + layer.bias.numpy(), 0)
    assert np.any(expected == 0) and np.any(expected > 0)
    np.testing.assert_allclose(_run(layers, x), expected, rtol=1e-4, atol=1e-5)


def test_wavenet_layers_hand_on_their_residual_outputs_without_activation(make, x):
    layers = make("wavenet", 3)
    assert [type(layer) for layer in layers] == [WavenetBlock] * LAYERS
    assert [(layer.filters, layer.kernel_size, layer.dilation) for layer in layers] == [
        (FILTERS, 3, 1)
    ] * LAYERS
    assert [layer.memory for layer in layers] == [2] * LAYERS
    # Only the first has another number of channels than filters to project.
    assert [layer.residual_conv is None for layer in layers] == [False, True, True, True]
    expected = x
    for layer in layers:
        expected = outputs_of(layer, expected).residual
    assert np.any(expected < 0)
    np.testing.assert_array_equal(_run(layers, x), expected)


@pytest.mark.parametrize("kind", ["conv1x1", "wavenet"])
def test_no_layers_hand_on_their_input(make, x, kind):
    assert make(kind, num_layers=0) == []
    outputs, state = serial.run([], x, serial.initial_state([], BATCH))
    np.testing.assert_array_equal(outputs, x)
    assert state == ()


def test_names_are_those_of_checkpoints(make):
    for kind in ("conv1x1", "wavenet"):
        assert [layer.name for layer in make(kind)] == [f"output_{i}" for i in range(LAYERS)]


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="^kind must be 'conv1x1' or 'wavenet', got 'lstm'$"):
        serial.make_output_layers("lstm", 1, FILTERS, 2, FLOAT32)
