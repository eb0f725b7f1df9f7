"""One update: score a batch, differentiate, clip, apply; on one device or on several.

An update whose objective or gradient is not finite leaves the weights as they are.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from stcn_tf import bounds, noise
from stcn_tf.config import TrainingSettings
from stcn_tf.distribution import Distribution, Share
from stcn_tf.layers import phase
from stcn_tf.models.base import SequenceModel
from stcn_tf.seeds import Stream
from stcn_tf.training import schedules

_ADAM_EPSILON = 1e-8  # TensorFlow 1's default, which the paper's "default parameters" are

# Gradients in float16 are scaled: twofold after so many updates, by half when they overflow
# (Micikevicius et al., "Mixed precision training", 2018).
_FIRST_SCALE, _LARGEST_SCALE, _UPDATES_PER_SCALE = 2.0**15, 2.0**24, 2000


class StepResult(NamedTuple):
    """Sums over one global batch (with their denominators, to be averaged late) and scalars.

    Of an update that was skipped all are 0 but what says so.
    """

    log_likelihood: tf.Tensor  # [], nats
    kl: tf.Tensor  # [layers], nats
    elbo: tf.Tensor  # [], nats, a valid bound (of a particle filter's proposals none)
    at_floor: tf.Tensor  # [1 + layers], steps of which sigmas sit at their floor
    objective: tf.Tensor  # [], nats, what is maximised, before `loss_reduction`
    num_sequences: tf.Tensor  # []
    num_steps: tf.Tensor  # [], scored ones
    num_valid: tf.Tensor  # [], all steps of the sequences
    num_padded: tf.Tensor  # [], with the padding
    gradient_norm: tf.Tensor  # [], before clipping
    kl_weight: tf.Tensor  # []
    learning_rate: tf.Tensor  # []
    # [], 1 where objective or gradient were not finite, so that the weights were left alone.
    skipped: tf.Tensor
    # [], of skipped ones 1 where it is only that gradients overflowed in float16 as scaled.
    overflowed: tf.Tensor


def make_optimizer(config: TrainingSettings) -> keras.optimizers.Optimizer:
    """Adam, whose learning rate each update sets anew.

    Its name is part of the names in checkpoints; left to Keras it would be numbered.
    """
    return keras.optimizers.Adam(config.learning_rate, epsilon=_ADAM_EPSILON, name="adam")


class TrainStep:
    """`step(share)` makes one update of the model's weights.

    The number of the update is the optimizer's counter, so the schedules and the latent noise
    continue where a restored optimizer stopped. Updates that are skipped count.

    Args:
        config: the training settings.
        model: built, in the strategy's scope.
        optimizer: from `make_optimizer`, in the strategy's scope.
        distribution: on which devices; None: on one.
        jit_compile: compile scoring and gradients with XLA.
        recompute: steps of a block that is computed again for its gradient; 0: none is.

    Attributes:
        state: variables, beside those of model and optimizer, that an update reads and writes.
    """

    def __init__(
        self,
        config: TrainingSettings,
        model: SequenceModel,
        optimizer: keras.optimizers.Optimizer,
        distribution: Distribution | None = None,
        jit_compile: bool = False,
        recompute: int = 0,
    ):
        self.config = config
        self._recompute = recompute
        self.model = model
        self.optimizer = optimizer
        self._distribution = distribution or Distribution()
        self.state = {}
        if config.precision == "mixed_float16":
            with self._distribution.strategy.scope():
                self.state = {
                    "loss_scale": tf.Variable(_FIRST_SCALE, trainable=False),
                    "updates_with_scale": tf.Variable(0, trainable=False),
                }
        share = Share.spec(model.num_features)
        self._gradients = tf.function(
            self._scored_gradients,
            jit_compile=jit_compile,
            autograph=False,  # no Python here depends on tensors; without it tracing is faster
            input_signature=[
                share,
                tf.TensorSpec([], tf.float32),
                tf.TensorSpec([2], tf.int32),
                tf.TensorSpec([], tf.float32),
            ],
        )
        # A signature saves a second trace, but cannot describe the values of several replicas.
        single = self._distribution.num_replicas == 1
        self._update = tf.function(
            self._step,
            autograph=False,
            input_signature=[share] if single else None,
            reduce_retracing=True,
        )

    def __call__(self, share: Share) -> StepResult:
        """One update from a batch; `share` is a per-replica value where there are several."""
        return self._update(share)

    def seed_of(self, update: tf.Tensor | int) -> tf.Tensor:
        """[2] int32: of the noise of an update, by its number."""
        seed = noise.stream_of(self.config.seed, Stream.TRAINING)
        # The 0 is no choice any more, but changing it would change what seeds stand for.
        return noise.fold_in(noise.fold_in(seed, update), 0)

    def rewards(self, share: Share, update: tf.Tensor | int) -> tf.Tensor:
        """[sequences]: what update number `update` maximises the sum of, computed once more."""
        weight = schedules.kl_weight(self.config, tf.cast(update, tf.int64))
        with phase.training():
            scored, objective = self._scored(share, weight, self.seed_of(update))
            return self._rewards(share, scored, objective)

    def _step(self, share: Share) -> StepResult:
        distribution = self._distribution
        # Running means of statistics move while a batch is scored.
        moving = [variable.value for variable in self.model.non_trainable_variables]
        before = [tf.identity(variable) for variable in moving]
        computed = distribution.strategy.run(self._reduced_gradients, args=(share,))
        result = distribution.reduced(computed[0])

        # A condition within a replica could not apply gradients to mirrored variables.
        def apply():
            distribution.strategy.run(self._apply, args=(computed[1], result.learning_rate))
            return self._scaled(1)

        def skip():
            for variable, value in zip(moving, before, strict=True):
                variable.assign(value)
            self.optimizer.iterations.assign_add(1)
            return self._scaled(0)

        done = tf.cond(result.skipped > 0.0, skip, apply)
        with tf.control_dependencies([done]):
            return tf.nest.map_structure(tf.identity, result)

    def _reduced_gradients(self, share: Share) -> tuple[StepResult, list[tf.Tensor]]:
        """In a replica: what the update is to be made of, the same in each."""
        replica = tf.distribute.get_replica_context()
        update = tf.cast(self.optimizer.iterations, tf.int64) + 1
        rate = schedules.learning_rate(self.config, update)
        weight = schedules.kl_weight(self.config, update)
        scale = tf.constant(1.0)
        if self.state:
            scale = tf.convert_to_tensor(self.state["loss_scale"])

        sums, gradients = self._gradients(share, weight, self.seed_of(update), scale)
        # All-reduce, divide by the global batch, clip, apply: in this order the update does not
        # depend on the number of replicas.
        sums, gradients = replica.all_reduce("sum", (sums, gradients))
        count = sums["num_sequences"] * scale
        gradients = [g / count for g in gradients]
        norm = tf.linalg.global_norm(gradients)
        if self.config.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.config.clip_norm, use_norm=norm)
        is_scored = tf.math.is_finite(sums["objective"])
        is_good = is_scored & tf.math.is_finite(norm)
        scalars = {"gradient_norm": norm, "kl_weight": weight, "learning_rate": rate}
        told = tf.nest.map_structure(lambda v: tf.where(is_good, v, 0.0), sums | scalars)
        told["skipped"] = tf.cast(~is_good, tf.float32)
        told["overflowed"] = tf.cast(~is_good & is_scored & (scale > 1.0), tf.float32)
        return StepResult(**told), gradients

    def _apply(self, gradients: list[tf.Tensor], rate: tf.Tensor) -> None:
        """In a replica: changes the weights."""
        self.optimizer.learning_rate = rate
        # Keras sums what it is given over the replicas once more.
        share = 1.0 / self._distribution.num_replicas
        self.optimizer.apply([g * share for g in gradients], self.model.trainable_variables)

    def _scaled(self, is_good: int) -> tf.Tensor:
        """Adapts the scale of the loss; something to wait for."""
        if self.state:
            scale, updates = self.state["loss_scale"], self.state["updates_with_scale"]
            now, count = tf.convert_to_tensor(scale), tf.convert_to_tensor(updates) + 1
            is_due = count >= _UPDATES_PER_SCALE
            if is_good:
                scale.assign(tf.where(is_due, tf.minimum(2.0 * now, _LARGEST_SCALE), now))
                updates.assign(tf.where(is_due, 0, count))
            else:
                scale.assign(tf.maximum(now / 2.0, 1.0))
                updates.assign(0)
        return tf.constant(is_good)

    def _scored_gradients(
        self, share: Share, kl_weight: tf.Tensor, seed: tf.Tensor, scale: tf.Tensor
    ) -> tuple[dict[str, Any], list[tf.Tensor]]:
        variables = [v.value for v in self.model.trainable_variables]
        with tf.GradientTape() as tape, phase.training():
            scored, objective = self._scored(share, kl_weight, seed)
            num_scored = tf.cast(self.model.num_scored(share.lengths), tf.float32)
            loss = -tf.reduce_sum(self._rewards(share, scored, objective)) * scale
        # Wavenet-dense need not read its topmost block, which then has no gradient.
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(loss, variables, unconnected_gradients=zero)
        sums = {
            "log_likelihood": tf.reduce_sum(scored.mean.log_likelihood),
            "kl": tf.reduce_sum(scored.mean.kl, axis=0),
            "elbo": tf.reduce_sum(scored.mean.elbo(self.model)),
            "at_floor": tf.reduce_sum(scored.mean.at_floor, axis=0),
            "objective": tf.reduce_sum(objective),
            "num_sequences": tf.cast(tf.shape(share.x)[0], tf.float32),
            "num_steps": tf.reduce_sum(num_scored),
            "num_valid": tf.cast(tf.reduce_sum(share.lengths), tf.float32),
            "num_padded": tf.cast(tf.size(share.x[..., 0]), tf.float32),
        }
        return sums, gradients

    def _rewards(self, share: Share, scored: bounds.Scored, objective: tf.Tensor) -> tf.Tensor:
        rewards = objective - scored.mean.auxiliary
        if self.config.loss_reduction == "mean_step":
            num_scored = tf.cast(self.model.num_scored(share.lengths), tf.float32)
            rewards /= tf.maximum(num_scored, 1.0)
        return rewards

    def _scored(
        self, share: Share, kl_weight: tf.Tensor, seed: tf.Tensor
    ) -> tuple[bounds.Scored, tf.Tensor]:
        """The batch, scored; and for each sequence what is maximised, [batch]."""
        name, num_samples = self.config.objective, self.config.num_samples
        options = {}
        if name != "fivo":
            options = {"at_once": num_samples, "recompute_every": self._recompute}
        scored = bounds.score(
            name,
            self.model,
            share.x,
            share.lengths,
            seed,
            num_samples,
            rows=share.rows,
            kl_weight=kl_weight,
            **options,
        )
        if name == "elbo":
            return scored, scored.mean.objective(kl_weight)
        return scored, scored.bound
