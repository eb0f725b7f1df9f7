"""The observation model with the floors of the authors' released program."""

from stcn_tf.layers.observation import Observation


class ReleasedObservation(Observation):
    """`Observation` whose logarithms have floors; the arguments are the same."""

    def __init__(self, num_real: int, num_binary: int, num_components: int = 1, **kwargs):
        super().__init__(num_real, num_binary, num_components, released_floors=True, **kwargs)
