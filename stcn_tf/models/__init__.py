"""The sequence models, and the one function that makes them from settings."""

from stcn_tf.config import ModelConfig
from stcn_tf.data.records import DatasetCard
from stcn_tf.models.base import ScoreTerms, Seed, SequenceModel
from stcn_tf.models.stcn import STCN, STCNOutput

__all__ = ["STCN", "STCNOutput", "ScoreTerms", "Seed", "SequenceModel", "build_model"]


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
    model = STCN(
        num_real=card.num_real,
        num_binary=card.num_binary,
        num_components=config.num_components if config.observation == "gmm" else 1,
        num_filters=config.num_filters,
        kernel_size=config.kernel_size,
        blocks_per_layer=config.blocks_per_layer,
        latent_sizes=config.latent_sizes,
        latent_hidden_layers=config.latent_hidden_layers,
        output_layers=config.output_layers,
        output_filters=config.output_filters,
        dense=config.model == "stcn_dense",
        posterior_draws=config.posterior_draws,
        posterior_precision=config.posterior_precision,
        compute_dtype=compute_dtype,
        name=config.model,
    )
    model.build()
    return model
