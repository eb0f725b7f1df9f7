"""The settings of the models, one class for each, put together from what they share.

Layer 1 is the lowest (the paper's z^1); lists go from layer 1 to layer L. Defaults are the paper's
for handwriting (Aksan & Hilliges, ICLR 2019, Appendix 7.1); where the authors' released
configurations differ, the field's text says so. Which model has which class is in
`stcn_tf.models.registry`.
"""

import dataclasses
from typing import ClassVar

from stcn_tf.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class ModelSettings(Settings):
    """What every model has: its name in the registry and the distribution of x.

    Attributes:
        released_options: fields that the model's class in `stcn_tf.released` knows and no other.
    """

    released_options: ClassVar[tuple[str, ...]] = ()

    model: str = setting()
    observation: str = setting(
        "gmm",
        "distribution of the real-valued features; binary ones are always Bernoulli",
        ("normal", "gmm"),
    )
    num_components: int = setting(20, "components of the GMM", least=1)


@dataclasses.dataclass(frozen=True)
class ReleasedSettings(Settings):
    """Options for the numbers of the authors' released program."""

    released_options: ClassVar[tuple[str, ...]] = ("released_floors",)

    released_floors: bool = setting(
        False,
        "put the floors of the authors' program under variances, weights and probabilities before "
        "their logarithms are taken: its numbers, but not quite densities",
    )


@dataclasses.dataclass(frozen=True)
class StackSettings(Settings):
    """A stack of Wavenet blocks."""

    num_filters: int = setting(256, "filters of the Wavenet blocks", least=1)
    kernel_size: int = setting(2, "width of the dilated causal convolutions", least=2)


@dataclasses.dataclass(frozen=True)
class OutputSettings(Settings):
    """Layers between what a model computes and the heads of its observation."""

    output_type: str = setting(
        "conv1x1",
        "conv1x1: the output layers are 1x1 convolutions with ReLU; wavenet: Wavenet blocks of "
        "dilation 1, through which latents reach later steps (speech)",
        ("conv1x1", "wavenet"),
    )
    output_layers: int = setting(
        5, "layers between the latents (or the stack) and the heads", least=0
    )
    output_filters: int = setting(256, "filters of the output layers", least=1)
    output_kernel_size: int = setting(
        2, "width of the convolutions of Wavenet output layers", least=2
    )


@dataclasses.dataclass(frozen=True)
class STCNSettings(ReleasedSettings, OutputSettings, StackSettings, ModelSettings):
    """STCN and STCN-dense."""

    released_options: ClassVar[tuple[str, ...]] = ("posterior_draws", "released_floors")

    blocks_per_layer: int = setting(
        6,
        "K: Wavenet blocks below each latent layer, with dilations 1, 2, ..., 2^(K-1)",
        least=1,
        most=20,
    )
    dilations: tuple[int, ...] = setting(
        (), "dilations of the Wavenet blocks, over and over; empty: 1,2,...,2^(K-1)", least=1
    )
    latent_sizes: tuple[int, ...] = setting(
        (32, 16, 8, 5, 2),
        "units of z^1,...,z^L; their number is L (released for handwriting: 32,16,8,4,2)",
        least=1,
        nonempty=True,
    )
    latent_hidden_layers: int = setting(2, "hidden layers of each latent network", least=0)
    latent_filters: int = setting(
        0,
        "filters of the hidden layers of the latent networks; 0: as many as --num_filters",
        least=0,
    )
    posterior_draws: str = setting(
        "shared",
        "shared: one draw of each z^l serves every use, a valid bound (paper); independent: a "
        "fresh draw for every use, as released: for stcn_dense the objective is no lower bound",
        ("shared", "independent"),
    )
    posterior_scale: str = setting(
        "std",
        "what 1/(sum of precisions) is in Eq. 11: std, as printed and released, or variance, as "
        "in the ladder VAE",
        ("std", "variance"),
    )


@dataclasses.dataclass(frozen=True)
class WavenetSettings(ReleasedSettings, OutputSettings, StackSettings, ModelSettings):
    """Wavenet."""

    dilations: tuple[int, ...] = setting(
        (1, 2, 4, 8, 16, 32),
        "dilations of the Wavenet blocks, over and over (released: 1,2,4,8,16)",
        least=1,
        nonempty=True,
    )
    wavenet_blocks: int = setting(25, "Wavenet blocks", least=1)
    first_frame: str = setting(
        "scored",
        "scored: x_1 is predicted from a zero frame, as in stcn; given: x_1 is not scored, as "
        "released",
        ("scored", "given"),
    )


@dataclasses.dataclass(frozen=True)
class WavenetDenseSettings(WavenetSettings):
    """Wavenet-dense."""

    wavenet_dense_blocks: tuple[int, ...] = setting(
        (5, 15, 25),
        "blocks whose residual outputs are read; 1 is the lowest",
        least=1,
        nonempty=True,
    )

    def _check(self) -> None:
        top = self.wavenet_blocks
        known = all(block <= top for block in self.wavenet_dense_blocks)
        accepted = f"one or more numbers from 1 to {top} (--wavenet_blocks)"
        self._require("wavenet_dense_blocks", known, accepted)
