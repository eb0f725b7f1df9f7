"""The sequence models, and the one function that makes them from settings."""

from stcn_tf.config import ModelConfig
from stcn_tf.data.records import DatasetCard
from stcn_tf.models.base import ScoreTerms, Seed, SequenceModel
from stcn_tf.models.stcn import STCN, STCNOutput
from stcn_tf.models.wavenet import Wavenet

__all__ = ["STCN", "STCNOutput", "ScoreTerms", "Seed", "SequenceModel", "Wavenet", "build_model"]


def build_model(
    config: ModelConfig, card: DatasetCard, compute_dtype: str = "float32"
) -> SequenceModel:
    """Makes a model with its weights.

    Args:
        config: the model's settings.
        card: of the records, which say how many features of which kind a step has.
        compute_dtype: policy of the convolutions, "float32" or "mixed_bfloat16".

    Returns:
        The built model, its weights drawn from Keras' global seed.
    """
    common = {
        "num_real": card.num_real,
        "num_binary": card.num_binary,
        "num_components": config.num_components if config.observation == "gmm" else 1,
        "num_filters": config.num_filters,
        "kernel_size": config.kernel_size,
        "output_layers": config.output_layers,
        "output_filters": config.output_filters,
        "output_type": config.output_type,
        "output_kernel_size": config.output_kernel_size,
        "released_floors": config.released_floors,
        "compute_dtype": compute_dtype,
        "name": config.model,
    }
    if config.model.startswith("wavenet"):
        model = Wavenet(
            dilations=config.stack_dilations,
            dense_blocks=config.wavenet_dense_blocks if config.model == "wavenet_dense" else (),
            first_frame=config.first_frame,
            **common,
        )
    else:
        model = STCN(
            dilations=config.stack_dilations,
            blocks_per_layer=config.blocks_per_layer,
            latent_sizes=config.latent_sizes,
            latent_hidden_layers=config.latent_hidden_layers,
            latent_filters=config.latent_filters,
            dense=config.model == "stcn_dense",
            posterior_draws=config.posterior_draws,
            posterior_precision=config.posterior_precision,
            **common,
        )
    model.build()
    return model
