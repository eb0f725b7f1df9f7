"""Every purpose that random numbers serve, named once.

A user gives one seed. What is drawn for one purpose must not depend on what is drawn for another,
so each folds its own number into the seed (`noise.fold_in`; of the data NumPy's `SeedSequence`).
The numbers are part of what makes a run's results: none is ever reused or changed.
"""

import enum


class DataStream(enum.IntEnum):
    """What a stream of random numbers of the batches is for."""

    SHARD_ORDER = 0
    RECORD_ORDER = 1
    BATCH_ORDER = 2
    CROP = 3
    BINARIZATION = 4


class Stream(enum.IntEnum):
    """What a stream of random numbers of a model is for. The values are folded into a seed."""

    # Of a run.
    TRAINING = 0
    VALIDATION = 1
    TRAINING_RECONSTRUCTIONS = 2
    TRAINING_SAMPLES = 3
    # Within one call of a model or of a bound.
    LATENTS = 16
    OBSERVATION = 17
    RESAMPLING = 18
    # Within one draw of an observation.
    REAL_VALUES = 32
    DISCRETE_VALUES = 33
