"""STCN with the options of the authors' released program."""

from stcn_tf.models.stcn import STCN


class ReleasedSTCN(STCN):
    """STCN with `posterior_draws` and `released_floors`."""
