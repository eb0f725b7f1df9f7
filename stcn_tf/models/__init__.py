"""The sequence models, and the one function that makes them from settings."""

from stcn_tf.config import ModelConfig
from stcn_tf.data.records import DatasetCard
from stcn_tf.layers.observation import Observation
from stcn_tf.models.base import SequenceModel, State, Terms
from stcn_tf.models.stcn import STCN
from stcn_tf.models.wavenet import Wavenet
from stcn_tf.released.observation import ReleasedObservation
from stcn_tf.released.stcn import ReleasedSTCN

__all__ = ["STCN", "SequenceModel", "State", "Terms", "Wavenet", "build_model"]


def build_model(
    config: ModelConfig, card: DatasetCard, compute_dtype: str = "float32"
) -> SequenceModel:
    """Temporary."""
    kind = ReleasedObservation if config.released_floors else Observation
    observation = kind(
        card.num_real,
        card.num_binary,
        config.num_components if config.observation == "gmm" else 1,
        name="observation",
    )
    common = {
        "observation": observation,
        "num_filters": config.num_filters,
        "kernel_size": config.kernel_size,
        "output_layers": config.output_layers,
        "output_filters": config.output_filters,
        "output_type": config.output_type,
        "output_kernel_size": config.output_kernel_size,
        "compute_dtype": compute_dtype,
        "name": config.model,
    }
    if config.model.startswith("wavenet"):
        model = Wavenet(
            wavenet_blocks=config.wavenet_blocks,
            dilations=config.stack_dilations,
            wavenet_dense_blocks=config.wavenet_dense_blocks
            if config.model == "wavenet_dense"
            else (),
            first_frame=config.first_frame,
            **common,
        )
    else:
        cls = STCN
        if config.released_floors or config.posterior_draws == "independent":
            cls = ReleasedSTCN
            common |= {
                "posterior_draws": config.posterior_draws,
                "released_floors": config.released_floors,
            }
        model = cls(
            dilations=config.dilations,
            blocks_per_layer=config.blocks_per_layer,
            latent_sizes=config.latent_sizes,
            latent_hidden_layers=config.latent_hidden_layers,
            latent_filters=config.latent_filters,
            dense=config.model == "stcn_dense",
            posterior_scale=config.posterior_precision,
            **common,
        )
    model.build()
    return model
