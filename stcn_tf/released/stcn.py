"""STCN as the authors' released program computes it: independent draws, floors under the KL.

With independent draws layer l >= 2 of the hierarchy is drawn anew for each use: for the output
layers, for the prior below and for the posterior below, while its KL is counted once. For
STCN-dense that objective is no lower bound: the draws that the output and the prior below read are
two latents of the generative model, and a bound pays for both (`elbo_kl_weights`). What the
posterior below reads is no latent, only noise that the approximate posterior is made with.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.models.stcn import STCN, Draw

tfd = tfp.distributions

# What the program puts under the standard deviations of the KL before it takes their logarithms,
# and under the variance that it divides by.
_KL_FLOOR = 1e-6


class ReleasedSTCN(STCN):
    """`STCN` with the options of the authors' program.

    Args:
        posterior_draws: "shared": one draw of each z^l for every use; "independent": one for each
            use, as released.
        released_floors: compute the KL with the program's floors, which make it too small where a
            posterior's sigma is below 1e-6. (Those of the likelihood are `ReleasedObservation`'s.)
        **kwargs: see `STCN`.

    Raises:
        ValueError: `posterior_draws` is neither.
    """

    def __init__(
        self, *, posterior_draws: str = "independent", released_floors: bool = False, **kwargs
    ):
        super().__init__(**kwargs)
        if posterior_draws not in ("shared", "independent"):
            raise ValueError(
                f"posterior_draws must be 'shared' or 'independent', got {posterior_draws!r}"
            )
        self.posterior_draws = posterior_draws
        self.released_floors = released_floors
        if self.dense and posterior_draws == "independent":
            self.elbo_kl_weights = (1.0,) + (2.0,) * (len(self.latent_sizes) - 1)

    @property
    def _noise_sizes(self) -> list[int]:
        lowest, *others = self.latent_sizes
        uses = 3 if self.posterior_draws == "independent" else 1
        return [lowest, *(uses * units for units in others)]

    def _draw(self, source: tfd.Normal, standard: tf.Tensor, is_lowest: bool) -> Draw:
        if is_lowest or self.posterior_draws == "shared":
            return super()._draw(source, standard, is_lowest)
        for_output, for_prior, for_posterior = (
            (source.loc + source.scale * part, part) for part in tf.split(standard, 3, axis=-1)
        )
        latents = (for_output, for_prior) if self.dense else (for_prior,)
        return Draw(for_output[0], for_prior[0], for_posterior[0], latents)

    def _kl_divergence(self, posterior: tfd.Normal, prior: tfd.Normal) -> tf.Tensor:
        if not self.released_floors:
            return super()._kl_divergence(posterior, prior)
        log_ratio = tf.math.log(tf.maximum(prior.scale, _KL_FLOOR)) - tf.math.log(
            tf.maximum(posterior.scale, _KL_FLOOR)
        )
        squares = posterior.scale**2 + (posterior.loc - prior.loc) ** 2
        return log_ratio + squares / (2.0 * tf.maximum(prior.scale**2, _KL_FLOOR)) - 0.5
