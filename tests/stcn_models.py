"""Small STCNs and what passes through them, for several test files."""

import numpy as np
import tensorflow as tf

from stcn_tf.layers import Observation, ObservationParameters, serial
from stcn_tf.models.stcn import STCN, Latents
from stcn_tf.released.observation import ReleasedObservation
from stcn_tf.released.stcn import ReleasedSTCN
from tests.contract import randomize

BATCH, TIME, REAL, BINARY, COMPONENTS = 2, 11, 2, 1, 4
FILTERS, LATENTS = 6, (5, 3, 2)
LENGTHS = np.array([TIME, 7], np.int32)
MASK = np.arange(TIME) < LENGTHS[:, np.newaxis]
SIZES = {
    "num_filters": FILTERS,
    "kernel_size": 2,
    "blocks_per_layer": 2,
    "latent_sizes": LATENTS,
    "latent_hidden_layers": 1,
    "output_layers": 2,
    "output_filters": 7,
    "dense": True,
}


def make_stcn(
    seed: int = 0,
    *,
    features: tuple[int, int, int] = (REAL, BINARY, COMPONENTS),
    draws: str = "shared",
    floors: bool = False,
    scale: float = 0.5,
    **changes,
) -> STCN:
    """An STCN-dense with random weights, each size another number.

    Args:
        seed: of the weights.
        features: real and binary ones, and components of the mixture.
        draws: of the posterior; "independent" makes the released model, like `floors`.
        floors: of the released program.
        scale: standard deviation of the weights.
        **changes: arguments of the model that differ from `SIZES`.
    """
    kind = ReleasedObservation if floors else Observation
    settings = {"observation": kind(*features, name="observation"), **SIZES, **changes}
    if draws == "shared" and not floors:
        model = STCN(**settings)
    else:
        model = ReleasedSTCN(posterior_draws=draws, released_floors=floors, **settings)
    model.build()
    return randomize(model, seed, scale)


def stcn_frames() -> np.ndarray:
    """[BATCH, TIME, features] float32."""
    rng = np.random.default_rng(1)
    strokes = rng.standard_normal((BATCH, TIME, REAL))
    pen = rng.integers(0, 2, (BATCH, TIME, BINARY))
    return np.concatenate([strokes, pen], axis=-1).astype(np.float32)


def passed(
    model: STCN, x: np.ndarray, seed=(1, 2), temperature: float = 1.0, *, latents: str = "posterior"
) -> tuple[Latents, ObservationParameters]:
    """The latents of whole sequences, from posterior or prior, and what is made of them."""
    x = tf.convert_to_tensor(x)
    start = model.start(x.shape[0])
    steps = model.encode(x, tf.fill([x.shape[0]], x.shape[1]), start).steps
    posterior = steps.posterior if latents == "posterior" else None
    places = model.places_of(start, x)
    drawn = model.draw_latents(steps.prior, posterior, places, seed, temperature)
    outputs, _ = serial.run(model.output_layers, drawn.read, start.latent)
    return drawn, model.observation(outputs)[0]


def moments(normals) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Mean and sigma of each."""
    return [(normal.loc, normal.scale) for normal in normals]


def answer(network, mean: float, sigma) -> None:
    """Lets a latent network answer every input with these numbers."""
    for variable in network.weights:
        variable.assign(tf.zeros_like(variable))
    network.mean_layers[-1].bias.assign(np.full(network.units, mean))
    bias = np.log(np.expm1(np.asarray(sigma, np.float64)))
    network.sigma_layers[-1].bias.assign(np.broadcast_to(bias, network.units))


def networks_of(model: STCN) -> list:
    """Prior and posterior network of every layer."""
    return [
        network
        for layer in model.latent_layers
        for network in (layer.prior_network, layer.posterior_network)
    ]
