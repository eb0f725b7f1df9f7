"""One update: score a batch, differentiate, clip, apply; on one device or mirrored on several."""

from typing import NamedTuple

import keras
import tensorflow as tf

from stcn_tf import bounds, noise
from stcn_tf.config import TrainingSettings
from stcn_tf.data.batches import Batch
from stcn_tf.layers import phase
from stcn_tf.models.base import SequenceModel
from stcn_tf.seeds import Stream
from stcn_tf.training import schedules

_ADAM_EPSILON = 1e-8  # TensorFlow 1's default, which the paper's "default parameters" are


class StepResult(NamedTuple):
    """Sums over one global batch (with their denominators, to be averaged late) and scalars."""

    log_likelihood: tf.Tensor  # [], nats
    kl: tf.Tensor  # [layers], nats
    elbo: tf.Tensor  # [], nats, a valid bound (of a particle filter's proposals none)
    objective: tf.Tensor  # [], nats, what is maximised, before `loss_reduction`
    num_sequences: tf.Tensor  # []
    num_steps: tf.Tensor  # [], scored ones
    num_valid: tf.Tensor  # [], all steps of the sequences
    num_padded: tf.Tensor  # [], with the padding
    gradient_norm: tf.Tensor  # [], before clipping
    kl_weight: tf.Tensor  # []
    learning_rate: tf.Tensor  # []


def make_optimizer(config: TrainingSettings) -> keras.optimizers.Optimizer:
    """Adam, whose learning rate each update sets anew.

    Its name is part of the names in checkpoints; left to Keras it would be numbered.
    """
    return keras.optimizers.Adam(config.learning_rate, epsilon=_ADAM_EPSILON, name="adam")


class TrainStep:
    """`step(batch)` makes one update of the model's weights.

    The number of the update is the optimizer's counter, so the schedules and the latent noise
    continue where a restored optimizer stopped.

    Args:
        config: the training settings.
        model: built, in the strategy's scope.
        optimizer: from `make_optimizer`, in the strategy's scope.
        strategy: the distribution strategy; the default one for a single device.
        jit_compile: compile scoring and gradients with XLA.
        recompute: steps of a block that is computed again for its gradient; 0: none is.
    """

    def __init__(
        self,
        config: TrainingSettings,
        model: SequenceModel,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        jit_compile: bool = False,
        recompute: int = 0,
    ):
        self.config = config
        self._recompute = recompute
        self.model = model
        self.optimizer = optimizer
        self.strategy = strategy
        batch = Batch(
            x=tf.TensorSpec([None, None, model.num_features], tf.float32),
            lengths=tf.TensorSpec([None], tf.int32),
        )
        self._gradients = tf.function(
            self._scored_gradients,
            jit_compile=jit_compile,
            autograph=False,  # no Python here depends on tensors; without it tracing is faster
            input_signature=[
                batch,
                tf.TensorSpec([], tf.float32),
                tf.TensorSpec([2], tf.int32),
            ],
        )
        # A signature saves a second trace, but cannot describe the values of several replicas.
        single = strategy.num_replicas_in_sync == 1
        self._update = tf.function(
            self._strategy_step,
            autograph=False,
            input_signature=[batch] if single else None,
            reduce_retracing=True,
        )

    def __call__(self, batch: Batch) -> StepResult:
        """One update from a batch; a per-replica value where there are several replicas."""
        return self._update(batch)

    def _strategy_step(self, batch: Batch) -> StepResult:
        results = self.strategy.run(self._replica_step, args=(batch,))
        # Reduced inside each replica already, so every replica holds the same.
        return tf.nest.map_structure(
            lambda r: self.strategy.experimental_local_results(r)[0], results
        )

    def _replica_step(self, batch: Batch) -> StepResult:
        replica = tf.distribute.get_replica_context()
        update = tf.cast(self.optimizer.iterations, tf.int64) + 1
        rate = schedules.learning_rate(self.config, update)
        weight = schedules.kl_weight(self.config, update)
        seed = noise.stream_of(self.config.seed, Stream.TRAINING)
        seed = noise.fold_in(noise.fold_in(seed, update), replica.replica_id_in_sync_group)

        sums, gradients = self._gradients(batch, weight, seed)
        # All-reduce, divide by the global batch, clip, apply: in this order the update does not
        # depend on the number of replicas.
        sums, gradients = replica.all_reduce("sum", (sums, gradients))
        gradients = [g / sums["num_sequences"] for g in gradients]
        norm = tf.linalg.global_norm(gradients)
        if self.config.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.config.clip_norm, use_norm=norm)
        self.optimizer.learning_rate = rate
        # Keras sums what it is given over the replicas once more.
        share = 1.0 / self.strategy.num_replicas_in_sync
        self.optimizer.apply([g * share for g in gradients], self.model.trainable_variables)
        return StepResult(**sums, gradient_norm=norm, kl_weight=weight, learning_rate=rate)

    def _scored_gradients(self, batch: Batch, kl_weight: tf.Tensor, seed: tf.Tensor):
        variables = [v.value for v in self.model.trainable_variables]
        with tf.GradientTape() as tape, phase.training():
            scored, objective = self._scored(batch, kl_weight, seed)
            num_scored = tf.cast(self.model.num_scored(batch.lengths), tf.float32)
            reward = objective - scored.mean.auxiliary
            if self.config.loss_reduction == "mean_step":
                reward /= tf.maximum(num_scored, 1.0)
            loss = -tf.reduce_sum(reward)
        # Wavenet-dense need not read its topmost block, which then has no gradient.
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(loss, variables, unconnected_gradients=zero)
        sums = {
            "log_likelihood": tf.reduce_sum(scored.mean.log_likelihood),
            "kl": tf.reduce_sum(scored.mean.kl, axis=0),
            "elbo": tf.reduce_sum(scored.mean.elbo(self.model)),
            "objective": tf.reduce_sum(objective),
            "num_sequences": tf.cast(tf.shape(batch.x)[0], tf.float32),
            "num_steps": tf.reduce_sum(num_scored),
            "num_valid": tf.cast(tf.reduce_sum(batch.lengths), tf.float32),
            "num_padded": tf.cast(tf.size(batch.x[..., 0]), tf.float32),
        }
        return sums, gradients

    def _scored(
        self, batch: Batch, kl_weight: tf.Tensor, seed: tf.Tensor
    ) -> tuple[bounds.Scored, tf.Tensor]:
        """The batch, scored; and for each sequence what is maximised, [batch]."""
        name, num_samples = self.config.objective, self.config.num_samples
        options = {}
        if name != "fivo":
            options = {"at_once": num_samples, "recompute_every": self._recompute}
        scored = bounds.score(
            name,
            self.model,
            batch.x,
            batch.lengths,
            seed,
            num_samples,
            kl_weight=kl_weight,
            **options,
        )
        if name == "elbo":
            return scored, scored.mean.objective(kl_weight)
        return scored, scored.bound
