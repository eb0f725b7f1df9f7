"""Sampling and continuation, in the normalised units of the records; reconstruction.

`generate_raw` takes and gives raw units, `Reconstructor` gives them.

A given beginning is observed in one pass, its latents drawn from the posterior: as much of its end
as the model can see. Then each step is predicted, drawn and advanced, with latents from the prior
(Eq. 7) and x_t from Eq. 9. Time and memory of a step do not depend on how many there are. Compiled
with XLA a step is faster, which pays for many steps of few sequences; the random numbers are the
same.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from stcn_tf import noise
from stcn_tf.bounds import sum_over_time
from stcn_tf.data.batches import Batch
from stcn_tf.data.card import Normalization
from stcn_tf.media.reconstructions import Reconstructions
from stcn_tf.models.base import SequenceModel, State
from stcn_tf.noise import Places, Seed
from stcn_tf.seeds import Stream
from stcn_tf.support.errors import UserError

# Compiling takes some seconds and saves what TensorFlow needs to start the operations of a step, so
# it pays from many steps on: of one sequence some 3,000 at the paper's size (two AVX-512 cores).
# Of many sequences at once products take the time, in which XLA is no better.
COMPILED_FROM, COMPILED_UP_TO = 3000, 32
# Steps of one call, which is what is compiled: once for each number of sequences, whatever their
# length. Each call lays out the weights for XLA's products, which takes as long as some 20 steps.
BLOCK = 200
# What the states of the sequences of one chunk may take, how many steps of their beginnings are
# observed together, and how many values they have in the end, of which there are some copies then.
_CHUNK_BYTES, _CHUNK_STEPS, _CHUNK_VALUES = 2**26, 2**15, 2**24


class Temperatures(NamedTuple):
    """How far draws stray from the likeliest: of all sequences, or [num], of each.

    Attributes:
        real: of the real-valued features, see `Observation.sample`.
        latent: multiplies the noise of the latents, those of a beginning included; 0: means.
        binary: of the binary features, see `Observation.sample`.
    """

    real: tf.Tensor | float = 1.0
    latent: tf.Tensor | float = 1.0
    binary: tf.Tensor | float = 1.0


AS_MODELLED = Temperatures()


def _accepted(name: str, value: tf.Tensor | float) -> tuple[tf.Tensor | bool, str]:
    """Whether a number may be asked for, and which may; `name` is of a temperature, if no other."""
    if name in ("num", "count"):
        return value >= 1, "1 or more"
    if name == "length":
        return value >= 0, "0 or more"
    return tf.math.is_finite(value) & (value >= 0.0), "a finite number, 0 or more"


def check(**numbers: float) -> None:
    """Checks what is asked of a generator.

    Args:
        **numbers: num, length, count, and temperatures of any other name.

    Raises:
        UserError: one of them is not accepted.
    """
    for name, value in numbers.items():
        is_accepted, accepted = _accepted(name, tf.convert_to_tensor(value))
        if not is_accepted:
            raise UserError(f"{name}: {value}; accepted: {accepted}")


def assertions(**numbers: tf.Tensor) -> list[tf.Operation]:
    """`check` as part of a graph: operations that fail, which what follows must depend on.

    XLA would leave them out, so they are no part of what is compiled.
    """
    operations = []
    for name, value in numbers.items():
        is_accepted, accepted = _accepted(name, value)
        message = tf.strings.format(f"{name}: {{}}; accepted: {accepted}", value)
        operations.append(tf.debugging.Assert(is_accepted, [message]))
    return operations


class Generator:
    """Generates sequences with one model; made once, so that it is traced once.

    Args:
        model: built. One that does not predict the first frame begins with a zero one where nothing
            is given, the mean of the records.
        jit_compile: compile the steps with XLA; None: where it pays, from `COMPILED_FROM` steps on,
            of `COMPILED_UP_TO` sequences at most.

    Attributes:
        begin: (beginning [num, steps, features], its lengths [num], rows [num], seeds [num, 2],
            `Temperatures` of [num]) -> the `State` after the beginnings.
        step: (`State`, seeds, temperatures) -> the next frame of every sequence, [num, features],
            and the state after it.
        steps: (`State`, seeds, temperatures, count) -> the next frames, [num, count, features], and
            the state after them.
        state_spec: of `State`, for any number of sequences.
    """

    def __init__(self, model: SequenceModel, jit_compile: bool | None = None):
        self.model = model
        self.jit_compile = jit_compile
        each, whole = tf.TensorSpec([None], tf.float32), tf.TensorSpec([None], tf.int32)
        draws = [tf.TensorSpec([None, 2], tf.int32), Temperatures(*[each] * 3)]
        frames = tf.TensorSpec([None, None, model.num_features], tf.float32)
        self.state_spec = tf.nest.map_structure(
            lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), model.start(1)
        )

        # Sizes are left open, as in an exported model: TensorFlow optimises graphs of known sizes
        # into ones that round otherwise.
        def traced(function, signature, jit_compile=False):
            return tf.function(
                function, input_signature=signature, jit_compile=jit_compile, autograph=False
            )

        self.begin = traced(functools.partial(_begin, model), [frames, whole, whole, *draws])
        self.step = traced(functools.partial(_step, model), [self.state_spec, *draws])
        self.steps = traced(
            functools.partial(_steps, model),
            [self.state_spec, *draws, tf.TensorSpec([], tf.int32)],
        )
        self._compiled = traced(
            functools.partial(_steps, model, count=BLOCK),
            [self.state_spec, *draws],
            jit_compile=True,
        )

    def compiles(self, num: tf.Tensor | int, num_steps: tf.Tensor | int) -> tf.Tensor | bool:
        """Whether so many steps, each of `num` sequences, are compiled."""
        if self.jit_compile is not None:
            return self.jit_compile
        return (num_steps >= COMPILED_FROM) & (num <= COMPILED_UP_TO)

    def __call__(
        self,
        beginning: tf.Tensor,
        length: int,
        seed: Seed,
        temperatures: Temperatures = AS_MODELLED,
        given_lengths: tf.Tensor | None = None,
        first_row: int = 0,
        compiled: bool | None = None,
        progress: Callable[[int], None] = lambda steps: None,
    ) -> tf.Tensor:
        """Generates.

        Args:
            beginning: [num, steps, features] float32, what every sequence starts with; `steps` may
                be 0, and `num` is the number of sequences.
            length: steps to generate after each beginning.
            seed: stateless; the same seed gives the same samples. [num, 2]: one for each.
            temperatures: of the draws.
            given_lengths: [num] int32, how many steps of `beginning` each sequence starts with, the
                others being padding; None: all.
            first_row: the number of the first sequence among all that are drawn with this seed.
            compiled: whether to; None: as `compiles` says of `length`.
            progress: told how many steps were made each time.

        Returns:
            [num, steps + length, features] float32, the beginnings included. A sequence with a
            shorter beginning goes on from its own end and is followed by zeros.

        Raises:
            UserError: there is no sequence; or a length or a temperature is negative, or not
                finite; or a sequence is given more steps than `beginning` has.
        """
        beginning, given_lengths = _given(beginning, given_lengths)
        for name, values in temperatures._asdict().items():
            for value in np.ravel(values):
                check(**{f"temperatures.{name}": float(value)})
        check(num=len(beginning), length=length)
        if not np.all((given_lengths >= 0) & (given_lengths <= beginning.shape[1])):
            raise UserError(
                f"given_lengths: {given_lengths.numpy().tolist()}; accepted: 0 to the "
                f"{beginning.shape[1]} steps of the beginnings"
            )
        compiled = self.compiles(len(beginning), length) if compiled is None else compiled
        rows = first_row + tf.range(tf.shape(beginning)[0])
        draws = of_each(tf.shape(rows)[0], seed, temperatures)
        state = self.begin(beginning, given_lengths, rows, *draws)
        blocks = []
        for done in range(0, length, BLOCK):
            count = min(BLOCK, length - done)
            if compiled:
                frames, state = self._compiled(state, *draws)
            else:
                frames, state = self.steps(state, *draws, count)
            blocks.append(frames[:, :count])
            progress(count)
        nothing = beginning[:, :0]
        return _joined(self.model, beginning, given_lengths, tf.concat([nothing, *blocks], axis=1))

    def in_graph(
        self,
        beginning: tf.Tensor,
        length: tf.Tensor,
        seed: tf.Tensor,
        temperatures: Temperatures = AS_MODELLED,
        given_lengths: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The same as part of a graph, as a SavedModel has it; `length` is a scalar int32."""
        beginning, given_lengths = _given(beginning, given_lengths)
        rows = tf.range(tf.shape(beginning)[0])
        draws = of_each(tf.shape(rows)[0], seed, temperatures)
        state = self.begin(beginning, given_lengths, rows, *draws)
        at_least_one = tf.maximum(length, 1)  # nothing cannot be stacked

        def plain():
            return self.steps(state, *draws, at_least_one)[0][:, :length]

        def compiled():
            return self._in_blocks(state, draws, at_least_one)[:, :length]

        which = self.compiles(tf.shape(beginning)[0], length)
        if isinstance(which, bool):
            frames = compiled() if which else plain()
        else:
            frames = tf.cond(which, compiled, plain)
        return _joined(self.model, beginning, given_lengths, frames)

    def _in_blocks(self, state: State, draws: tuple, length: tf.Tensor) -> tf.Tensor:
        """Compiled steps, block after block: [num, `length` or some more, features]."""
        num_blocks = (length + BLOCK - 1) // BLOCK
        shape = tf.TensorShape([None, BLOCK, self.model.num_features])

        def body(index, state, blocks):
            frames, state = self._compiled(state, *draws)
            return index + 1, state, blocks.write(index, frames)

        _, _, blocks = tf.while_loop(
            lambda index, *_: index < num_blocks,
            body,
            (tf.constant(0), state, tf.TensorArray(tf.float32, num_blocks, element_shape=shape)),
            shape_invariants=(tf.TensorShape([]), _open(state), tf.TensorShape(None)),
            parallel_iterations=1,
        )
        frames = tf.transpose(blocks.stack(), [1, 0, 2, 3])  # [num, blocks, BLOCK, features]
        num = tf.shape(state.step)[0]
        return tf.reshape(frames, [num, num_blocks * BLOCK, shape[-1]])


def of_each(
    num: tf.Tensor | int, seed: Seed, temperatures: Temperatures
) -> tuple[tf.Tensor, Temperatures]:
    """Seeds [num, 2] and temperatures of [num], of each sequence, from those of all or of each."""
    each = (tf.broadcast_to(tf.cast(value, tf.float32), [num]) for value in temperatures)
    return tf.broadcast_to(noise.as_seed(seed), [num, 2]), Temperatures(*each)


def _given(beginning: tf.Tensor, given_lengths: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    beginning = tf.convert_to_tensor(beginning, tf.float32)
    num, steps = tf.unstack(tf.shape(beginning)[:2])
    if given_lengths is None:
        return beginning, tf.fill([num], steps)
    return beginning, tf.convert_to_tensor(given_lengths, tf.int32)


def _observed(
    model: SequenceModel, beginning: tf.Tensor, given_lengths: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """What is observed before the first draw, and how many steps of it of each sequence.

    No padding, whatever that may hold. A model that does not predict the first frame is given a
    zero one, the mean of the records, where there is none.
    """
    within = tf.sequence_mask(given_lengths, tf.shape(beginning)[1])[..., tf.newaxis]
    extra = model.num_given_frames
    observed = tf.pad(tf.where(within, beginning, 0.0), [[0, 0], [0, extra], [0, 0]])
    return observed, tf.maximum(given_lengths, extra)


def _recent(
    model: SequenceModel, observed: tf.Tensor, lengths: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The last frames of each sequence, as far as later ones see; how many; how many are before."""
    if model.receptive_field is None:
        return observed, lengths, tf.zeros_like(lengths)
    count = tf.minimum(tf.shape(observed)[1], model.receptive_field)
    skipped = tf.maximum(lengths - count, 0)
    position = skipped[:, tf.newaxis] + tf.range(count)
    return tf.gather(observed, position, axis=1, batch_dims=1), lengths - skipped, skipped


def _begin(
    model: SequenceModel,
    beginning: tf.Tensor,
    given_lengths: tf.Tensor,
    rows: tf.Tensor,
    seed: Seed,
    temperatures: Temperatures,
) -> State:
    """The state after the beginnings; see `Generator.begin`."""
    observed, lengths, skipped = _recent(model, *_observed(model, beginning, given_lengths))
    start = model.start(tf.shape(observed)[0])._replace(row=rows, step=skipped)
    encoded = model.encode(observed, lengths, start)
    latent = temperatures.latent[:, tf.newaxis, tf.newaxis]
    return model.observe(encoded, observed, lengths, start, seed, latent)[1]


def _step(
    model: SequenceModel, state: State, seed: Seed, temperatures: Temperatures
) -> tuple[tf.Tensor, State]:
    """See `Generator.step`."""
    return _drawn(model, state, seed, noise.fold_in(seed, Stream.OBSERVATION), temperatures)


def _drawn(
    model: SequenceModel,
    state: State,
    seed: Seed,
    observation_seed: Seed,
    temperatures: Temperatures,
) -> tuple[tf.Tensor, State]:
    """The next frame, [num, features], and the state after it."""
    real, latent, binary = (value[:, tf.newaxis, tf.newaxis] for value in temperatures)
    parameters, pending = model.predict_next(state, seed, latent)
    places = Places(state.row, state.step[:, tf.newaxis])
    drawn = model.observation.sample(parameters, observation_seed, places, real, binary)
    return drawn[:, 0], model.advance(pending, drawn)


def _steps(
    model: SequenceModel,
    state: State,
    seed: Seed,
    temperatures: Temperatures,
    count: tf.Tensor | int,
) -> tuple[tf.Tensor, State]:
    """See `Generator.steps`."""
    # Once for all steps: TensorFlow would compute it in each.
    observation_seed = noise.fold_in(seed, Stream.OBSERVATION)

    def body(index, state, frames):
        frame, state = _drawn(model, state, seed, observation_seed, temperatures)
        return index + 1, state, frames.write(index, frame)

    _, state, frames = tf.while_loop(
        lambda index, *_: index < count,
        body,
        (
            tf.constant(0),
            state,
            tf.TensorArray(tf.float32, size=count, element_shape=[None, model.num_features]),
        ),
        shape_invariants=(tf.TensorShape([]), _open(state), tf.TensorShape(None)),
    )
    return tf.transpose(frames.stack(), [1, 0, 2]), state


def _open(state: State) -> State:
    """Its shapes, rows left open: not all operations of a loop's body keep their number."""
    return tf.nest.map_structure(lambda part: tf.TensorShape([None, *part.shape[1:]]), state)


def _joined(
    model: SequenceModel, beginning: tf.Tensor, given_lengths: tf.Tensor, drawn: tf.Tensor
) -> tf.Tensor:
    """Of each row what was given, what was drawn, zeros: [num, steps + length, features]."""
    observed, lengths = _observed(model, beginning, given_lengths)
    steps, length = tf.shape(beginning)[1], tf.shape(drawn)[1]
    both = tf.concat([observed, drawn, tf.zeros_like(observed)], axis=1)
    position = tf.range(steps + length)[tf.newaxis]  # [1, time]
    behind = position - lengths[:, tf.newaxis] + tf.shape(observed)[1]
    is_given = position < lengths[:, tf.newaxis]
    sequences = tf.gather(both, tf.where(is_given, position, behind), axis=1, batch_dims=1)
    is_within = position < given_lengths[:, tf.newaxis] + length
    return tf.where(is_within[..., tf.newaxis], sequences, 0.0)


def generate_raw(
    generator: Generator,
    normalization: Normalization,
    beginnings: Sequence[np.ndarray],
    length: int,
    seed: Seed,
    temperatures: Temperatures = AS_MODELLED,
    progress: Callable[[int], None] = lambda steps: None,
) -> list[np.ndarray]:
    """Continues sequences of raw units, each from its own end, as many at once as memory allows.

    Args:
        generator: of the model.
        normalization: of the records that the model was trained on.
        beginnings: [steps, features] each, not necessarily of one length; of no steps at all: the
            sequence is generated from its first step on.
        length: steps to generate after each beginning.
        seed: stateless; the same seed gives the same samples.
        temperatures: of the draws.
        progress: told how many steps were made each time, of `length` for each of `chunked`.

    Returns:
        [steps + length, features] float32 each; its first `steps` are those of its beginning.

    Raises:
        UserError: there is no beginning; or see `Generator`.
    """
    check(num=len(beginnings), length=length)
    chunks = chunked(generator.model, beginnings, length)
    compiled = generator.compiles(len(chunks[0]), len(chunks) * length)
    sequences = []
    for chunk in chunks:
        its = [beginnings[i] for i in chunk if i < len(beginnings)]
        given_lengths = np.zeros(len(chunk), np.int32)
        given_lengths[: len(its)] = [len(beginning) for beginning in its]
        steps, features = max(map(len, beginnings)), generator.model.num_features
        padded = np.zeros((len(chunk), steps, features), np.float32)
        for row, beginning in zip(padded, its, strict=False):
            row[: len(beginning)] = normalization.normalize(beginning)
        generated = generator(
            padded, length, seed, temperatures, given_lengths, chunk[0], compiled, progress
        )
        for row, beginning in zip(generated.numpy(), its, strict=False):
            sequence = normalization.denormalize(row[: len(beginning) + length])
            # Back from normalised values they could be off by rounding.
            sequence[: len(beginning)] = beginning
            sequences.append(sequence)
    return sequences


def chunked(model: SequenceModel, beginnings: Sequence[np.ndarray], length: int) -> list[range]:
    """The numbers of the sequences that are generated together, as many in each chunk.

    The last chunk may go beyond the last sequence, so that none has a shape of its own.

    Args:
        model: built.
        beginnings: [steps, features] each.
        length: steps to generate after each.
    """
    num, longest = len(beginnings), max(1, *map(len, beginnings))
    parts = tf.nest.flatten(model.start(1))
    most = _CHUNK_BYTES // sum(part.dtype.size * int(tf.size(part)) for part in parts)
    observed = min(longest, model.receptive_field or longest)
    values = (longest + length) * model.num_features
    most = max(min(most, _CHUNK_STEPS // observed, _CHUNK_VALUES // values), 1)
    size = -(-num // -(-num // most))
    return [range(first, first + size) for first in range(0, num, size)]


class Reconstructor:
    """Reconstructs and scores sequences with one model; made once, so that it is traced once.

    Args:
        model: built.
        normalization: of the records.
    """

    def __init__(self, model: SequenceModel, normalization: Normalization):
        self._model = model
        self._normalization = normalization

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, model.num_features], tf.float32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([2], tf.int32),
            ],
            autograph=False,
        )
        def rebuild(x, lengths, seed):
            terms = model.score(x, lengths, seed)
            rebuilt = [model.reconstruction(terms, x, binarize) for binarize in (True, False)]
            return (x, *rebuilt), sum_over_time(terms).elbo(model)

        self._rebuild = rebuild

    def __call__(self, batches: Iterable[Batch], seed: Seed) -> Reconstructions:
        """Reconstructs with one draw of the latents from the posterior; gives raw units.

        Args:
            batches: of `batches.eval_batches`, normalised.
            seed: of the latent noise, each batch's number being folded in.
        """
        rows, elbos = [], []
        for index, (x, lengths, *_) in enumerate(batches):
            padded, elbo = self._rebuild(x, lengths, noise.fold_in(seed, index))
            elbos.append(elbo.numpy())
            padded = [self._normalization.denormalize(values.numpy()) for values in padded]
            rows += [
                [values[:length] for values in row]
                for *row, length in zip(*padded, lengths.numpy(), strict=True)
            ]
        originals, reconstructions, probabilities = zip(*rows, strict=True)
        return Reconstructions(
            list(originals),
            list(reconstructions),
            list(probabilities),
            np.concatenate(elbos),
            is_exact=not self._model.latent_sizes,
        )
