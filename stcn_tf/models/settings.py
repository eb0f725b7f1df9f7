"""The settings of the models, one class for each, put together from what they share.

Layer 1 is the lowest (the paper's z^1); lists go from layer 1 to layer L. Defaults are the paper's
for handwriting (Aksan & Hilliges, ICLR 2019, Appendix 7.1); where the authors' released
configurations differ, the field's text says so. Which model has which class is in
`stcn_tf.models.registry`.
"""

import dataclasses
from typing import ClassVar

from stcn_tf.settings import Settings, setting

# No model that can be trained has more; a file that says so is damaged or malicious.
MOST_LAYERS, MOST_DILATION = 1000, 2**20


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
        "distribution of the features of a step; binary ones are always Bernoulli. normal, gmm: "
        "one diagonal Gaussian or mixture for all real ones (paper); bivariate, bivariate_gmm: "
        "with a correlation, of two real ones as those of strokes; featurewise_gmm: one for each; "
        "ordered_gmm: each reads those before it, too, binary ones first (pen -> dx -> dy); "
        "hierarchical_gmm: an LSTM runs along them (the samples of a frame of sound)",
        (
            "normal",
            "gmm",
            "bivariate",
            "bivariate_gmm",
            "featurewise_gmm",
            "ordered_gmm",
            "hierarchical_gmm",
        ),
    )
    num_components: int = setting(20, "components of a mixture", least=1)
    sigma_form: str = setting(
        "softplus",
        "what the sigma of normal, gmm, bivariate and bivariate_gmm is made of. softplus: "
        "softplus(.), as released; log_variance: its log variance (SRNN, Z-forcing)",
        ("softplus", "log_variance"),
    )
    frame_units: int = setting(256, "units of the LSTM of hierarchical_gmm", least=1)
    frame_embedding: int = setting(
        64, "units of what the LSTM of hierarchical_gmm reads of the feature before", least=1
    )
    frame_start: str = setting(
        "context",
        "what the first feature of hierarchical_gmm depends on. context: on the past, as all "
        "others; initial: on nothing but a learned state, as released by its authors",
        ("context", "initial"),
    )


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
        5, "layers between the latents (or the stack) and the heads", least=0, most=MOST_LAYERS
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
        (),
        "dilations of the Wavenet blocks, over and over; empty: 1,2,...,2^(K-1)",
        least=1,
        most=MOST_DILATION,
    )
    latent_sizes: tuple[int, ...] = setting(
        (32, 16, 8, 5, 2),
        "units of z^1,...,z^L; their number is L (released for handwriting: 32,16,8,4,2)",
        least=1,
        nonempty=True,
    )
    latent_hidden_layers: int = setting(
        2, "hidden layers of each latent network", least=0, most=MOST_LAYERS
    )
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
    latent_prior: str = setting(
        "dynamic",
        "dynamic: the prior of every z^l reads the past (paper); unit_top: that of z^L is N(0, I); "
        "static: that, and the others read z^{l+1} alone (as in the ladder VAE; samples then know "
        "nothing of the past)",
        ("dynamic", "unit_top", "static"),
    )
    latent_recursion: bool = setting(
        True,
        "let z^l read z^{l+1} (paper); without, only the output joins the layers (in the manner of "
        "Skip-VAE; ours)",
    )


@dataclasses.dataclass(frozen=True)
class WavenetSettings(ReleasedSettings, OutputSettings, StackSettings, ModelSettings):
    """Wavenet."""

    dilations: tuple[int, ...] = setting(
        (1, 2, 4, 8, 16, 32),
        "dilations of the Wavenet blocks, over and over (released: 1,2,4,8,16)",
        least=1,
        most=MOST_DILATION,
        nonempty=True,
    )
    wavenet_blocks: int = setting(25, "Wavenet blocks", least=1, most=MOST_LAYERS)
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


@dataclasses.dataclass(frozen=True)
class RecurrentSettings(ModelSettings):
    """A recurrent layer and the networks around it. Defaults are Chung et al.'s for IAM-OnDB."""

    recurrent_units: int = setting(1200, "units of the recurrent layer", least=1)
    input_units: int = setting(300, "units of the network that reads x", least=1)
    output_units: int = setting(300, "units of the network that the heads read", least=1)
    hidden_layers: int = setting(
        1, "layers of each network around the recurrent layer", least=0, most=MOST_LAYERS
    )


@dataclasses.dataclass(frozen=True)
class ForgetBiasSettings(Settings):
    """How an LSTM begins."""

    unit_forget_bias: bool = setting(
        True, "begin with 1 as the bias of the LSTM's forget gates; without it 0, as Chung et al."
    )


@dataclasses.dataclass(frozen=True)
class RNNSettings(ForgetBiasSettings, RecurrentSettings):
    """RNN."""

    recurrent_layers: int = setting(1, "LSTMs, one on the other", least=1, most=MOST_LAYERS)
    first_frame: str = setting(
        "scored",
        "scored: x_1 is predicted from the zero state (Chung et al.); given: x_1 is not scored, as "
        "in the RNN of STCN's authors",
        ("scored", "given"),
    )


@dataclasses.dataclass(frozen=True)
class LatentSettings(Settings):
    """One latent variable a step."""

    latent_size: int = setting(50, "units of z_t", least=1)
    latent_units: int = setting(
        150, "units of each hidden layer of the prior's and the posterior's network", least=1
    )


@dataclasses.dataclass(frozen=True)
class VRNNSettings(ForgetBiasSettings, LatentSettings, RecurrentSettings):
    """VRNN."""

    input_units: int = setting(250, "units of the network that reads x", least=1)
    latent_input_units: int = setting(150, "units of the network that reads z", least=1)
    output_units: int = setting(250, "units of the network that the heads read", least=1)
    residual_posterior: bool = setting(False, "add the mean of the prior to that of the posterior")


@dataclasses.dataclass(frozen=True)
class SRNNSettings(LatentSettings, RecurrentSettings):
    """SRNN. Defaults are ours for handwriting: none were published."""

    recurrent_units: int = setting(512, "units of each of the two recurrent layers", least=1)
    input_units: int = setting(256, "units of the network that reads x", least=1)
    output_units: int = setting(256, "units of the network that the heads read", least=1)
    hidden_layers: int = setting(
        2, "layers of each network around the recurrent layer", least=0, most=MOST_LAYERS
    )
    latent_size: int = setting(64, "units of z_t", least=1)
    latent_units: int = setting(
        256, "units of the hidden layer of the prior's and the posterior's networks", least=1
    )
    smoothing: bool = setting(True, "let the posterior see the frames after x_t, too")
    residual_posterior: bool = setting(
        True, "add the mean of the prior to that of the posterior (Res_q)"
    )


@dataclasses.dataclass(frozen=True)
class ZForcingSettings(LatentSettings, ModelSettings):
    """Z-forcing. Defaults are ours for handwriting: none were published."""

    recurrent_units: int = setting(512, "units of each of the two recurrent layers", least=1)
    input_units: int = setting(256, "units of the network that reads x", least=1)
    latent_size: int = setting(64, "units of z_t", least=1)
    latent_units: int = setting(
        256, "units of the hidden layer of the prior's and the posterior's network", least=1
    )
    auxiliary_weight: float = setting(
        0.015,
        "weight of the cost of predicting the backward state from z_t: trained, never reported",
        least=0,
    )
    backward_weight: float = setting(
        0.015,
        "weight of the cost of predicting x_{t-1} from the backward state: trained, never reported",
        least=0,
    )
    prior_sees_last_frame: bool = setting(
        False,
        "let prior and posterior read x_{t-1} itself, as in the authors' Theano program",
    )


@dataclasses.dataclass(frozen=True)
class VariationalBiLSTMSettings(ForgetBiasSettings, LatentSettings, ModelSettings):
    """Variational Bi-LSTM. Defaults are ours for handwriting: none were published."""

    recurrent_units: int = setting(512, "units of each of the two recurrent layers", least=1)
    output_units: int = setting(256, "units of the network that the heads read", least=1)
    latent_size: int = setting(64, "units of z_t", least=1)
    latent_units: int = setting(
        256, "units of the hidden layer of the networks of the Gaussians", least=1
    )
    auxiliary_weight: float = setting(
        1.0,
        "weight of the cost of predicting the backward state from z_t: trained, never reported",
        least=0,
    )
    forward_weight: float = setting(
        0.0,
        "weight of the cost of predicting the forward state from z_t: trained, never reported",
        least=0,
    )
    skip_gradient: bool = setting(
        True, "let the gradient of what is random into the recurrent layers in half of the steps"
    )


@dataclasses.dataclass(frozen=True)
class FSRNNSettings(ForgetBiasSettings, LatentSettings, ModelSettings):
    """F-SRNN. Defaults are Dai et al.'s for IAM-OnDB."""

    recurrent_units: int = setting(200, "units of each of the three recurrent layers", least=1)
    input_units: int = setting(150, "units of the network that reads x", least=1)
    latent_size: int = setting(150, "units of z_t", least=1)


@dataclasses.dataclass(frozen=True)
class SWaveNetSettings(ModelSettings):
    """SWaveNet. Defaults are the authors' for IAM-OnDB."""

    num_filters: int = setting(200, "channels of all blocks", least=1)
    deterministic_blocks: int = setting(
        5,
        "blocks below the stochastic layers; dilations double through all of them",
        least=0,
        most=20,
    )
    latent_sizes: tuple[int, ...] = setting(
        (200,), "units of z^1,...,z^L; their number is L", least=1, nonempty=True
    )
    mixer_units: int = setting(
        0, "units of the hidden layers between blocks, latents and output; 0: without", least=0
    )
    gate: str = setting(
        "sigmoid",
        "gate of the blocks. linear: as released, where the result of the sigmoid is not used",
        ("sigmoid", "linear"),
    )

    def _check(self) -> None:
        num_blocks = self.deterministic_blocks + len(self.latent_sizes)
        self._require(
            "latent_sizes", num_blocks <= 30, "30 numbers less --deterministic_blocks at most"
        )
