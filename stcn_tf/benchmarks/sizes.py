"""How much is timed. Without TensorFlow, which a process imports in an environment of its own."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of it."""

    batch_size: int = 20
    length: int = 200
    num_samples: int = 16
    rounds: int = 3
