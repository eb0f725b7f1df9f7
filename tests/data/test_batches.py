"""Batches: every sequence, whole or a true piece of it, little padding, the same after a resume."""

import itertools
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.data import records
from stcn_tf.data.batches import Batch, batches_per_epoch, eval_batches, train_batches
from stcn_tf.data.card import DatasetCard, Feature, Normalization, read_card
from stcn_tf.support.errors import UserError

# The value of feature 0 is the number of the sequence, of feature 1 the step (both from 1: padding
# is 0), so that every piece of every batch tells where it comes from.
FEATURES = tuple(
    Feature(name, kind, "", "")
    for name, kind in (("sequence", "real"), ("step", "real"), ("odd", "binary"))
)


def make_sequence(number, length):
    steps = np.arange(1, length + 1)
    return np.stack([np.full(length, number), steps, steps % 2], axis=1).astype(np.float32)


def write(out_dir, sequences_per_shard=10, **lengths):
    records.write_dataset(
        out_dir,
        name="counting",
        features=FEATURES,
        splits={
            split: (
                (f"s{number}", make_sequence(number, n))
                for number, n in enumerate(split_lengths, start=1)
            )
            for split, split_lengths in lengths.items()
        },
        normalization=Normalization("none", (0, 0, 0), (1, 1, 1)),
        source_sha256="",
        command="",
        sequences_per_shard=sequences_per_shard,
    )
    return out_dir


TRAIN_LENGTHS = np.random.default_rng(1).integers(2, 60, size=47)
VALID_LENGTHS = np.random.default_rng(2).integers(2, 60, size=23)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counting") / "data"
    return write(folder, train=TRAIN_LENGTHS, valid=VALID_LENGTHS)


@pytest.fixture(scope="module")
def ink_like(tmp_path_factory):
    """4000 sequences with the lengths of handwritten lines: 30 to 1900 steps, 628 on average."""
    rng = np.random.default_rng(3)
    sigma = 0.5
    lengths = rng.lognormal(np.log(628) - sigma**2 / 2, sigma, size=4000).clip(30, 1900)
    folder = tmp_path_factory.mktemp("ink") / "data"
    return write(folder, sequences_per_shard=1000, train=lengths.astype(int))


def take(dataset, count):
    return [Batch(*batch) for batch in dataset.take(count).as_numpy_iterator()]


def numbers(batch):
    return batch.x[:, 0, 0].astype(int).tolist()


def assert_equal(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.lengths, b.lengths)
        np.testing.assert_array_equal(a.x, b.x)


def orders(batches):
    return [numbers(batch) for batch in batches]


def assert_true_pieces(batch, source_lengths, max_length=0):
    """Each row is a contiguous piece of its source, of the right length, and zeros after it."""
    assert batch.x.dtype == np.float32 and batch.lengths.dtype == np.int32
    for row, length, number in zip(batch.x, batch.lengths, numbers(batch), strict=True):
        source = make_sequence(number, source_lengths[number - 1])
        assert length == min(len(source), max_length or len(source))
        first = int(row[0, 1]) - 1
        np.testing.assert_array_equal(row[:length], source[first : first + length])
        assert not row[length:].any()


# Training


def test_elements_are_batches_with_static_shapes(dataset):
    train = train_batches(dataset, batch_size=5, seed=0)
    assert isinstance(train.element_spec, Batch)
    assert train.element_spec.x == tf.TensorSpec([5, None, 3], tf.float32)
    assert train.element_spec.lengths == tf.TensorSpec([5], tf.int32)
    valid = eval_batches(dataset, split="valid", batch_size=5)
    assert valid.element_spec.x == tf.TensorSpec([None, None, 3], tf.float32)
    assert valid.element_spec.lengths == tf.TensorSpec([None], tf.int32)


@pytest.mark.parametrize("max_length", [0, 25])
def test_training_rows_are_true_pieces(dataset, max_length):
    for batch in take(train_batches(dataset, batch_size=5, seed=0, max_length=max_length), 40):
        assert batch.x.shape == (5, batch.lengths.max(), 3)
        assert_true_pieces(batch, TRAIN_LENGTHS, max_length)


@pytest.mark.parametrize(
    ("batch_size", "window"), [(5, 15), (5, 17), (4, 2000), (47, 50), (1, 1), (10, 20)]
)
def test_no_window_and_no_epoch_has_a_sequence_twice(dataset, batch_size, window):
    size = len(TRAIN_LENGTHS)
    per_epoch = batches_per_epoch(read_card(dataset), batch_size)
    assert per_epoch == size // batch_size
    num_epochs = 40
    train = train_batches(dataset, batch_size=batch_size, window=window, seed=0)
    numbered = orders(take(train, num_epochs * per_epoch))
    assert {len(order) for order in numbered} == {batch_size}
    left_out = Counter()
    for epoch in range(num_epochs):
        seen = Counter(itertools.chain(*numbered[epoch * per_epoch : (epoch + 1) * per_epoch]))
        assert set(seen.values()) == {1}
        left_out.update(set(range(1, size + 1)) - set(seen))
    # What fills no batch is another part of the split in each epoch, long or short.
    assert sum(left_out.values()) == num_epochs * (size % batch_size)
    if size % batch_size:
        assert len(left_out) > size / 2
        assert max(left_out.values()) < num_epochs / 2


def test_a_split_that_fills_no_batch_is_told(dataset):
    with pytest.raises(
        UserError, match=r"^--batch_size=48: the split train of .* has 47 sequences"
    ):
        train_batches(dataset, batch_size=48, seed=0)


def test_pieces_of_images_are_refused(tiny_images):
    train_batches(tiny_images, batch_size=3, seed=0)
    with pytest.raises(UserError, match=r"^--max_length=7: .* holds images, .* accepted: 0"):
        train_batches(tiny_images, batch_size=3, max_length=7, seed=0)


def test_same_seed_same_batches_and_other_seeds_others(dataset):
    def batches(seed):
        return take(train_batches(dataset, batch_size=5, window=20, max_length=20, seed=seed), 30)

    first = batches(0)
    assert_equal(first, batches(0))
    others = [batches(seed) for seed in (1, -1, 2**40)]
    for one, other in itertools.combinations([first, *others], 2):
        assert orders(one) != orders(other)


def test_epochs_differ_in_order_company_and_crop(dataset):
    per_epoch = 47
    batches = take(
        train_batches(dataset, batch_size=1, window=10, max_length=10, seed=0),
        3 * per_epoch,
    )
    epochs = [orders(batches[start : start + per_epoch]) for start in (0, per_epoch, 2 * per_epoch)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    offsets = {}
    for batch in batches:
        offsets.setdefault(numbers(batch)[0], set()).add(batch.x[0, 0, 1])
    long = [number for number in offsets if TRAIN_LENGTHS[number - 1] > 30]
    assert np.mean([len(offsets[number]) > 1 for number in long]) > 0.9


@pytest.mark.parametrize("max_length", [0, 5])
def test_ties_in_length_are_paired_anew(tmp_path, max_length):
    lengths = [5] * 12 if not max_length else range(10, 22)
    folder = write(tmp_path / "ties", train=lengths)
    batches = take(train_batches(folder, batch_size=2, max_length=max_length, seed=0), 6 * 200)
    pairs = Counter(tuple(sorted(order)) for order in orders(batches))
    assert len(pairs) == 12 * 11 // 2
    assert max(pairs.values()) < 45  # 18 expected


def test_crops_start_everywhere_equally_often(tmp_path):
    folder = write(tmp_path / "one", train=[12] * 50)
    batches = take(train_batches(folder, batch_size=50, max_length=8, seed=0), 40)
    counts = Counter(int(row[0, 1]) - 1 for batch in batches for row in batch.x)
    assert sorted(counts) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(list(counts.values()), 400, atol=5 * np.sqrt(400 * 0.8))


def test_short_and_long_batches_alternate(ink_like):
    batches = take(train_batches(ink_like, batch_size=20, seed=0), 100)
    longest = np.array([batch.x.shape[1] for batch in batches])
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.4  # sorted order: above 0.9


def test_padding_is_small(ink_like):
    batches = take(train_batches(ink_like, batch_size=20, seed=0), 200)
    steps = sum(int(batch.lengths.sum()) for batch in batches)
    size = sum(batch.x.shape[0] * batch.x.shape[1] for batch in batches)
    assert 570 < steps / 4000 < 690
    assert 1 - steps / size < 0.02


def test_pad_to_multiple_pads_and_changes_nothing_else(dataset):
    for make in (
        lambda multiple: train_batches(
            dataset, batch_size=5, seed=0, max_length=31, pad_to_multiple=multiple
        ),
        lambda multiple: eval_batches(
            dataset, split="train", batch_size=5, pad_to_multiple=multiple
        ),
    ):
        for padded, plain in zip(take(make(16), 9), take(make(1), 9), strict=True):
            time = plain.x.shape[1]
            assert padded.x.shape[1] == -(-time // 16) * 16
            np.testing.assert_array_equal(padded.lengths, plain.lengths)
            np.testing.assert_array_equal(padded.x[:, :time], plain.x)
            assert not padded.x[:, time:].any()


def test_resumed_training_continues_with_the_same_batches(dataset, tmp_path):
    def make():
        train = train_batches(
            dataset, batch_size=5, window=20, max_length=25, seed=5, pad_to_multiple=4
        )
        return iter(train)

    never_stopped, expected, paths = make(), [], {}
    for position in range(60):
        if position in (0, 1, 7, 9, 10, 33):  # an epoch is 9 batches, a window 4
            checkpoint = tf.train.Checkpoint(iterator=never_stopped)
            paths[position] = checkpoint.write(str(tmp_path / f"{position}"))
        expected.append(next(never_stopped))
    assert_equal(expected, list(itertools.islice(make(), 60)))  # undisturbed by being written
    for position, path in paths.items():
        resumed = make()
        tf.train.Checkpoint(iterator=resumed).read(path).assert_consumed()
        following = itertools.islice(resumed, 60 - position)
        assert_equal(list(following), expected[position:])


# Evaluation


@pytest.mark.parametrize("window", [1, 6, 10, 2000])
def test_evaluation_has_every_sequence_once_and_whole(dataset, window):
    batches = take(eval_batches(dataset, split="valid", batch_size=5, window=window), 1000)
    assert [len(batch.lengths) for batch in batches] == [5, 5, 5, 5, 3]
    assert sorted(itertools.chain(*orders(batches))) == list(range(1, 24))
    for batch in batches:
        assert batch.x.shape[1] == batch.lengths.max()
        assert_true_pieces(batch, VALID_LENGTHS)


def test_evaluation_never_changes_and_is_sorted(dataset):
    ds = eval_batches(dataset, split="valid", batch_size=5)
    batches = take(ds, 1000)
    assert_equal(batches, take(ds, 1000))
    lengths = np.concatenate([batch.lengths for batch in batches])
    np.testing.assert_array_equal(lengths, np.sort(VALID_LENGTHS))


@pytest.mark.parametrize("limit", [1, 12, 23, 1000])
def test_limit_takes_the_first_sequences(dataset, limit):
    batches = take(eval_batches(dataset, split="valid", batch_size=5, window=10, limit=limit), 1000)
    assert sorted(itertools.chain(*orders(batches))) == list(range(1, min(limit, 23) + 1))


def test_evaluation_resumes(dataset, tmp_path):
    def make():
        return eval_batches(dataset, split="train", batch_size=5, window=10)

    started = iter(make())
    next(started)
    path = tf.train.Checkpoint(iterator=started).write(str(tmp_path / "state"))
    resumed = iter(make())
    tf.train.Checkpoint(iterator=resumed).read(path).assert_consumed()
    assert_equal(list(resumed), list(started))


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"pad_to_multiple": -1}, "pad_to_multiple must be at least 1, got -1"),
        ({"split": "test"}, "there is no split 'test', only train, valid"),
    ],
)
def test_bad_arguments_are_refused(dataset, changes, message):
    with pytest.raises(UserError, match=message):
        train_batches(dataset, **dict(batch_size=2, seed=0) | changes)
    with pytest.raises(UserError, match=message):
        eval_batches(dataset, **dict(batch_size=2, split="valid") | changes)


def test_negative_max_length_and_limit_are_refused(dataset):
    with pytest.raises(UserError, match="max_length must be 0 .* or more, got -1"):
        train_batches(dataset, batch_size=2, seed=0, max_length=-1)
    with pytest.raises(UserError, match="limit must be 0 .* or more, got -1"):
        eval_batches(dataset, split="valid", batch_size=2, limit=-1)


def test_shards_are_verified_at_construction(tmp_path):
    folder = write(tmp_path / "data", train=[3, 4])
    path = folder / "train-00000-of-00001.tfrecord"
    path.write_bytes(path.read_bytes()[:-4])
    for make in (
        lambda: train_batches(folder, batch_size=1, seed=0),
        lambda: eval_batches(folder, split="train", batch_size=1),
    ):
        with pytest.raises(UserError, match="train-00000-of-00001.tfrecord: shard is truncated"):
            make()


def test_records_of_another_dimension_are_named(tmp_path):
    folder = write(tmp_path / "data", train=[3, 4])
    card = read_card(folder)
    narrow = DatasetCard(
        **vars(card)
        | {
            "features": FEATURES[:2],
            "normalization": Normalization("none", (0, 0), (1, 1)),
        }
    )
    (folder / "dataset.json").write_text(narrow.to_json())
    for make in (
        lambda: train_batches(folder, batch_size=1, seed=0),
        lambda: eval_batches(folder, split="train", batch_size=1),
    ):
        with pytest.raises(UserError, match=r"00001\.tfrecord: its records do not have the 2 feat"):
            make()


def test_a_record_of_another_dimension_among_others_is_named(tmp_path):
    folder = write(tmp_path / "data", train=[3, 4])
    path = str(folder / "train-00000-of-00001.tfrecord")
    serialized = tf.stack(list(tf.data.TFRecordDataset(path)))
    parse = tf.function(lambda: records.parse_records(serialized, 2))  # as in the pipeline
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        parse()
    assert "records do not hold length x 2 float32 values" in str(caught.value)
    assert "[s1 s2] [3 4] [36 48]" in str(caught.value)


# Splits that hold probabilities: feature 2 has those of the step, feature 3 one of the sequence.

STEP_PROBABILITIES = (0.0, 1.0, 0.25, 0.75)
SEQUENCE_PROBABILITIES = (0.5, 0.125, 0.0, 1.0, 0.875)


def make_probabilities(number, length):
    steps = np.arange(1, length + 1)
    p = np.take(STEP_PROBABILITIES, steps % 4)
    q = np.full(length, SEQUENCE_PROBABILITIES[number % 5])
    return np.stack([np.full(length, number), steps, p, q], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def probabilities(tmp_path_factory):
    """47 sequences as `dataset`'s, of other features."""
    folder = tmp_path_factory.mktemp("probabilities") / "data"
    kinds = (("sequence", "real"), ("step", "real"), ("p", "binary"), ("q", "binary"))
    records.write_dataset(
        folder,
        name="counting",
        features=[Feature(name, kind, "", "") for name, kind in kinds],
        splits={
            "train": (
                (f"s{number}", make_probabilities(number, n))
                for number, n in enumerate(TRAIN_LENGTHS, start=1)
            )
        },
        normalization=Normalization("none", (0,) * 4, (1,) * 4),
        source_sha256="",
        command="",
        probabilities=["train"],
        sequences_per_shard=10,
    )
    return folder


def draws_of(batches):
    """Steps of all batches together: what is stored of them, and what was drawn, [steps, 4] each.

    Checks that real features are those of a piece of the sequence, and that padding is 0.
    """
    stored, drawn = [], []
    for batch in batches:
        for row, length, number in zip(batch.x, batch.lengths, numbers(batch), strict=True):
            source = make_probabilities(number, TRAIN_LENGTHS[number - 1])
            first = int(row[0, 1]) - 1
            stored.append(source[first : first + length])
            drawn.append(row[:length])
            np.testing.assert_array_equal(drawn[-1][:, :2], stored[-1][:, :2])
            assert not row[length:].any()
    return np.concatenate(stored), np.concatenate(drawn)


def assert_drawn_by(stored, drawn):
    """Each value is 0 or 1, and 1 as often as the stored probability says."""
    for p, values in ((stored[:, 2], drawn[:, 2]), (stored[:, 3], drawn[:, 3])):
        assert set(np.unique(values)) == {0, 1}
        for probability in np.unique(p):
            chosen = values[p == probability]
            deviation = abs(chosen.mean() - probability)
            assert deviation <= 5 * np.sqrt(probability * (1 - probability) / len(chosen))
    # Two features of a step, and two steps in a row, are drawn independently.
    residual = (drawn - stored)[:, 2:]
    for one, other in ((residual[:, 0], residual[:, 1]), (residual[1:, 1], residual[:-1, 1])):
        product = one * other
        assert abs(product.sum()) < 5 * np.sqrt(np.square(product).sum())


def assert_all_differ(sequences):
    """No two long sequences have the same draws of the probabilities that steps have."""
    draws = [x[:44, 2].tobytes() for x in sequences if len(x) >= 44]
    assert len(draws) > 10
    assert len(set(draws)) == len(draws)


@pytest.mark.parametrize("max_length", [0, 25])
def test_training_draws_by_the_probabilities(probabilities, max_length):
    batches = train_batches(
        probabilities, batch_size=5, seed=0, max_length=max_length, pad_to_multiple=8
    )
    assert_drawn_by(*draws_of(take(batches, 100)))


def test_training_draws_anew_in_every_epoch_and_for_every_seed(probabilities):
    def epochs(seed, count):
        batches = take(train_batches(probabilities, batch_size=1, seed=seed), 47 * count)
        return [
            {numbers(batch)[0]: batch.x[0] for batch in batches[start : start + 47]}
            for start in range(0, 47 * count, 47)
        ]

    (first, second), (again,), (other,) = epochs(0, 2), epochs(0, 1), epochs(1, 1)
    for number, x in first.items():
        np.testing.assert_array_equal(x, again[number])
    assert_all_differ([x for epoch in (first, second, other) for x in epoch.values()])


@pytest.mark.parametrize("position", [7, 10])
def test_resumed_training_draws_the_same(probabilities, tmp_path, position):
    def make():
        return iter(train_batches(probabilities, batch_size=5, window=20, max_length=25, seed=5))

    never_stopped = make()
    for _ in range(position):
        next(never_stopped)
    path = tf.train.Checkpoint(iterator=never_stopped).write(str(tmp_path / "state"))
    expected = [next(never_stopped) for _ in range(15)]
    resumed = make()
    tf.train.Checkpoint(iterator=resumed).read(path).assert_consumed()
    assert_equal([next(resumed) for _ in range(15)], expected)


def test_evaluation_draws_always_alike(probabilities):
    def make():
        return take(
            eval_batches(probabilities, split="train", batch_size=3, window=6, pad_to_multiple=8),
            100,
        )

    batches = make()
    assert_equal(batches, make())
    assert sorted(itertools.chain(*orders(batches))) == list(range(1, 48))
    assert_drawn_by(*draws_of(batches))
    assert_all_differ([x[:n] for b in batches for x, n in zip(b.x, b.lengths, strict=True)])


def test_groups_come_with_the_sequences(tmp_path):
    rng = np.random.default_rng(4)
    records.write_dataset(
        tmp_path / "grouped",
        name="grouped",
        features=[Feature("a", "real", "", "")],
        splits={
            "train": [
                records.Sequence("one", rng.normal(size=(3, 1)), "größe"),
                records.Sequence("two", rng.normal(size=(5, 1))),
                ("three", rng.normal(size=(4, 1))),
                records.Sequence("four", rng.normal(size=(6, 1)), "a\nb"),
            ]
        },
        normalization=Normalization("none", (0.0,), (1.0,)),
        source_sha256="",
        command="a test",
    )
    (batch,) = eval_batches(tmp_path / "grouped", split="train", batch_size=4)
    assert batch.names == ["one", "three", "two", "four"]
    assert batch.group_names == ["größe", "", "", "a\\nb"]
