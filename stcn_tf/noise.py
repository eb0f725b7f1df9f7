"""Random numbers that belong to a place: to a row, a step and a unit, whatever else is drawn.

TensorFlow's stateless generators number what they draw by its position in the tensor that is asked
for, and XLA's differ from them. So more padding, another cut of a sequence into blocks, or
compilation would change the noise of a step. Here each number is a function of the seed and of its
own coordinates alone: the counter-based generator Threefry 2x32 with 20 rounds (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", 2011), in integer arithmetic that is the same on
every device, compiled or not.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from stcn_tf.seeds import Stream

# Any two integers; a tensor [2] int32 inside tf.function, or [batch, 2]: one for each sequence.
Seed = tuple[int, int] | tf.Tensor


class Places(NamedTuple):
    """What numbers belong to: the steps of some sequences."""

    rows: tf.Tensor  # [batch] int32, a number for each sequence that tells it from all others
    steps: tf.Tensor  # [batch, time] int32, the number of each step in its own sequence


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_GROUPS = 5  # of four rounds


# Of which operations graphs are made: on GPUs TensorFlow may not multiply unsigned integers.
_is_portable = contextvars.ContextVar("is_portable", default=False)


@contextlib.contextmanager
def portable(is_portable: bool = True) -> Iterator[None]:
    """Graphs traced within are made of operations that LiteRT has; the numbers are the same."""
    token = _is_portable.set(is_portable)
    try:
        yield
    finally:
        _is_portable.reset(token)


def as_seed(seed: Seed) -> tf.Tensor:
    """A seed as a tensor, [2] or [batch, 2] int32."""
    return tf.convert_to_tensor(seed, tf.int32)


def fold_in(seed: Seed, number: tf.Tensor | int | Stream) -> tf.Tensor:
    """Another seed for each number, unrelated to the others.

    Args:
        seed: [2] int32, or [batch, 2].
        number: a scalar integer, of which the lower 32 bits count; a `Stream` names a purpose.

    Returns:
        int32 of the shape of `seed`.
    """
    number = tf.bitcast(tf.cast(number, tf.int32), tf.uint32)
    words = _threefry(_key(seed), (number, tf.zeros_like(number)))
    return tf.bitcast(tf.stack(words, axis=-1), tf.int32)


def stream_of(seed: int, stream: Stream) -> tf.Tensor:
    """The seed of one purpose, [2] int32, from the one number that a user gives."""
    return fold_in((seed, 0), stream)


def standard_normal(seed: Seed, places: Places, units: int) -> tf.Tensor:
    """Independent standard normal numbers (Box and Muller).

    Args:
        seed: [2] int32, or [batch, 2].
        places: of `batch` sequences and `time` steps of each.
        units: numbers for each step.

    Returns:
        [batch, time, units] float32; that of row number r, step number s and unit u depends on the
        seed, r, s and u (and on `units`), and on nothing else.
    """
    first, second = _words(seed, places, (units + 1) // 2)
    # 31 bits, so that the tail reaches 6.6 standard deviations; never log(0).
    uniform = (_to_float(first, 1) + 0.5) * np.float32(2.0**-31)
    radius = tf.sqrt(-2.0 * tf.math.log(uniform))
    angle = np.float32(2.0 * np.pi) * _unit_interval(second)
    return tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=-1)[..., :units]


def uniform(seed: Seed, places: Places, units: int) -> tf.Tensor:
    """Independent uniform numbers, as `standard_normal`; neither 0 nor 1 is among them."""
    words = tf.concat(_words(seed, places, (units + 1) // 2), axis=-1)
    return _unit_interval(words)[..., :units]


def _unit_interval(words: tf.Tensor) -> tf.Tensor:
    """23 bits and a half: the largest that float32 tells from 1."""
    return (_to_float(words, 9) + 0.5) * np.float32(2.0**-23)


def _to_float(words: tf.Tensor, shift: int) -> tf.Tensor:
    """The upper bits as a float32; through int32, from which every device can convert."""
    upper = tf.bitwise.right_shift(words, tf.constant(shift, tf.uint32))
    return tf.cast(tf.bitcast(upper, tf.int32), tf.float32)


def _words(seed: Seed, places: Places, pairs: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Two random words for each pair of numbers, [batch, time, pairs] uint32 each."""
    rows, steps = (tf.convert_to_tensor(part, tf.int32) for part in places)
    batch, time = tf.unstack(tf.shape(steps))
    rows = rows[:, tf.newaxis] * pairs + tf.range(pairs)  # [batch, pairs]
    shape = [batch, time, pairs]
    counters = (
        tf.broadcast_to(steps[:, :, tf.newaxis], shape),
        tf.broadcast_to(rows[:, tf.newaxis, :], shape),
    )
    first, second = (tf.bitcast(counter, tf.uint32) for counter in counters)
    key = _key(seed)
    if key[0].shape.rank:
        key = tuple(word[:, tf.newaxis, tf.newaxis] for word in key)
    return _threefry(key, (first, second))


def _key(seed: Seed) -> tuple[tf.Tensor, tf.Tensor]:
    words = tf.bitcast(as_seed(seed), tf.uint32)
    return words[..., 0], words[..., 1]


def _rotated(words: tf.Tensor, bits: int) -> tf.Tensor:
    """Each word, its upper bits behind its lower ones."""
    lower = tf.bitwise.right_shift(words, tf.constant(32 - bits, tf.uint32))
    if _is_portable.get():
        return words * tf.constant(2**bits, tf.uint32) + lower
    return tf.bitwise.bitwise_or(tf.bitwise.left_shift(words, tf.constant(bits, tf.uint32)), lower)


def _threefry(
    key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Threefry 2x32, 20 rounds: two words of a key and two counters -> two random words."""
    bitwise = tf.bitwise
    parity = tf.constant(_PARITY, tf.uint32)
    keys = (*key, bitwise.bitwise_xor(bitwise.bitwise_xor(key[0], key[1]), parity))
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(_GROUPS):
        for rotation in _ROTATIONS[group % 2]:
            x += y
            y = bitwise.bitwise_xor(x, _rotated(y, rotation))
        x += keys[(group + 1) % 3]
        y += keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return x, y
