"""Whether a model is being trained, for layers that compute otherwise then.

It is known when a graph is traced, and is no argument of every operation of every model: only batch
normalisation asks.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_is_training = ContextVar("is_training", default=False)


def is_training() -> bool:
    """Whether what is computed now is an update of the weights."""
    return _is_training.get()


@contextlib.contextmanager
def training() -> Iterator[None]:
    """Inside the block models are trained."""
    token = _is_training.set(True)
    try:
        yield
    finally:
        _is_training.reset(token)
