import csv
import dataclasses
import json
import math
import re

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import noise
from stcn_tf.bounds import filter_particles, score_samples
from stcn_tf.data.batches import eval_batches
from stcn_tf.data.card import Feature, Modality, Normalization, read_card
from stcn_tf.inference import table
from stcn_tf.inference.evaluation import ACTIVE_UNIT_NATS, Evaluation, Evaluator
from stcn_tf.models import build_model
from stcn_tf.seeds import Stream
from stcn_tf.support.errors import UserError

ABOUT = {
    "run": "r",
    "model": "m",
    "checkpoint": "best",
    "update": 1234,
    "split": "valid",
    "posterior_draws": "shared",
    "posterior_scale": "std",
    "released_floors": False,
    "trained_with": {},
    "given_frames": 0,
    "piece": 0,
}


def evaluation_of(num_steps, groups=None, **values) -> Evaluation:
    num_steps = np.array(num_steps)
    rows = ("log_likelihood", "elbo", "objective")
    return Evaluation(
        **{
            **{name: np.zeros(len(num_steps)) for name in rows},
            "importance_weighted": None,
            "fivo": None,
            "kl": np.zeros((len(num_steps), 2)),
            "at_floor": np.zeros((len(num_steps), 3)),
            "active_units": (1, 0),
            "num_samples": 1,
            **{name: np.array(value, float) for name, value in values.items()},
        },
        ids=tuple(f"s{i}" for i in range(len(num_steps))),
        groups=tuple(groups or [""] * len(num_steps)),
        num_steps=num_steps,
    )


def batch_seed(seed, index):
    return noise.fold_in(noise.fold_in((seed, 0), Stream.VALIDATION), index)


@pytest.fixture(scope="module")
def model(tiny_records, tiny_config):
    return build_model(tiny_config.model, read_card(tiny_records))


def test_every_sequence_once_by_hand(model, tiny_records):
    batches = eval_batches(tiny_records, split="valid", batch_size=3)
    told = []
    evaluation = Evaluator(model)(batches, seed=4, progress=told.append)
    assert told == [3, 6, 7]
    elbos, reconstructions, kls, units, lengths = [], [], [], 0.0, []
    for index, (x, n, *_) in enumerate(batches):
        terms = model.score(x, n, batch_seed(4, index))
        for i, steps in enumerate(n.numpy()):
            reconstructions.append(terms.log_likelihood[i, :steps].numpy().sum())
            kls.append(terms.kl[i, :steps].numpy().sum(axis=0))
            elbos.append(reconstructions[-1] - kls[-1].sum())
            lengths.append(steps)
        units += terms.kl_per_unit[0].numpy().sum(axis=(0, 1))
    np.testing.assert_allclose(evaluation.elbo, elbos, rtol=1e-4)
    np.testing.assert_allclose(evaluation.objective, elbos, rtol=1e-4)
    np.testing.assert_allclose(evaluation.log_likelihood, reconstructions, rtol=1e-4)
    np.testing.assert_allclose(evaluation.kl, kls, rtol=1e-4)
    np.testing.assert_array_equal(evaluation.num_steps, lengths)
    assert evaluation.importance_weighted is None and evaluation.fivo is None
    assert evaluation.active_units[0] == np.sum(units / sum(lengths) > ACTIVE_UNIT_NATS)
    assert len(evaluation.active_units) == len(model.latent_sizes)
    ids = [name.decode() for batch in batches for name in batch.ids.numpy()]
    assert list(evaluation.ids) == ids
    assert sorted(ids) == [f"valid-{i}" for i in range(7)]


def test_the_terms_of_each_sequence_as_csv(model, tmp_path):
    evaluation = evaluation_of(
        [3, 5],
        groups=["", "f"],
        elbo=[-1.5, -2.25],
        log_likelihood=[-1.0, 0.1],
        kl=[[0.25, 0.25], [2.0, 0.35]],
    )
    table.write_sequences(evaluation, model, tmp_path / "each.csv")
    with (tmp_path / "each.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = "sequence group steps elbo reconstruction kl kl_of_layer_1 kl_of_layer_2".split()
    assert list(rows[0]) == columns
    assert [(row["sequence"], row["group"]) for row in rows] == [("s0", ""), ("s1", "f")]
    assert [float(rows[1][name]) for name in ("steps", "elbo", "reconstruction")] == [5, -2.25, 0.1]
    assert float(rows[1]["kl"]) == 2.35


def test_given_up(model, tiny_records):
    batches = eval_batches(tiny_records, split="valid", batch_size=3)
    assert Evaluator(model)(batches, stop=lambda: True) is None


def test_averages_and_standard_errors():
    evaluation = evaluation_of([10, 30], elbo=[5.0, 9.0])
    assert evaluation.per_sequence(evaluation.elbo) == 7.0
    assert evaluation.per_step(evaluation.elbo) == pytest.approx(14.0 / 40)
    assert evaluation.standard_error(evaluation.elbo) == pytest.approx(2.0)
    # Residuals from the ratio: 5 - 3.5 and 9 - 10.5, over the mean length 20.
    assert evaluation.per_step_standard_error(evaluation.elbo) == pytest.approx(1.5 / 20)
    alone = evaluation_of([10], elbo=[5.0])
    assert math.isnan(alone.standard_error(alone.elbo))


def test_standard_errors_are_over_groups():
    """Of sums over groups: what is alike within a group does not count as many observations."""
    values = np.array([5.0, 6.0, 11.0, 2.0, 4.0])
    evaluation = evaluation_of([10, 30, 20, 20, 20], groups=["a", "b", "a", "", ""], elbo=values)
    assert evaluation.grouping.are_grouped and evaluation.grouping.num_groups == 4
    # Residuals from the mean 5.6, added up: a 4.8, b 0.4, and -3.6 and -1.6 by themselves.
    squares = 4.8**2 + 0.4**2 + 3.6**2 + 1.6**2
    assert evaluation.standard_error(values) == pytest.approx(math.sqrt(4 / 3 * squares) / 5)
    copies = evaluation_of([10, 30] * 7, groups=["a", "b"] * 7, elbo=[5.0, 9.0] * 7)
    assert copies.standard_error(copies.elbo) == pytest.approx(2.0)
    assert copies.per_step_standard_error(copies.elbo) == pytest.approx(1.5 / 20)
    one = evaluation_of([10, 30], groups=["a", "a"], elbo=[5.0, 9.0])
    assert math.isnan(one.standard_error(one.elbo))


@pytest.mark.parametrize("grouped", [False, True])
def test_standard_error_covers_the_mean(grouped):
    rng = np.random.default_rng(1)
    lengths = rng.integers(20, 200, size=(400, 50))
    values = 1.5 * lengths + rng.normal(scale=20, size=lengths.shape)
    groups = [""] * 50
    if grouped:  # each sequence thrice over
        lengths, values = (np.repeat(array, 3, axis=1) for array in (lengths, values))
        groups = [f"g{i // 3}" for i in range(150)]
    inside = 0
    for n, v in zip(lengths, values, strict=True):
        evaluation = evaluation_of(n, groups=groups, elbo=v)
        error = evaluation.per_step_standard_error(v)
        inside += abs(evaluation.per_step(v) - 1.5) < 1.96 * error
    # 95 % of 400, with four binomial standard errors below for the small samples.
    assert 0.90 < inside / 400 < 0.99


def test_importance_weighted_bounds_of_a_split(model, tiny_records):
    batches = eval_batches(tiny_records, split="valid", batch_size=4)
    evaluation = Evaluator(model, bound="iwae", num_samples=5)(batches, seed=3)
    assert evaluation.num_samples == 5
    for index, (x, n, *_) in enumerate(batches):
        seed = batch_seed(3, index)
        expected = score_samples(model, x, n, seed, 5)
        rows = slice(4 * index, 4 * index + len(n))
        np.testing.assert_allclose(evaluation.importance_weighted[rows], expected.bound, rtol=1e-4)
        np.testing.assert_allclose(evaluation.elbo[rows], expected.mean.elbo(model), rtol=1e-4)


def test_fivo_of_a_split(tiny_records, tiny_config_with):
    model = build_model(tiny_config_with(model={"model": "vrnn"}).model, read_card(tiny_records))
    batches = eval_batches(tiny_records, split="valid", batch_size=4, limit=4)
    evaluation = Evaluator(model, bound="fivo", num_samples=3)(batches, seed=3)
    x, n, *_ = next(iter(batches))
    expected = filter_particles(model, x, n, batch_seed(3, 0), 3).bound
    np.testing.assert_allclose(evaluation.fivo, expected, rtol=1e-4)
    assert evaluation.importance_weighted is None


def test_fivo_is_refused_where_steps_can_be_weighted(model):
    with pytest.raises(UserError, match="--bound=fivo: .*elbo and iwae are accepted"):
        Evaluator(model, bound="fivo")


@pytest.mark.parametrize("first_frame", ["scored", "given"])
def test_a_given_first_frame_is_no_scored_step(tiny_records, tiny_config_with, first_frame):
    settings = tiny_config_with(
        model={"model": "wavenet", "wavenet_blocks": 2, "first_frame": first_frame}
    ).model
    card = read_card(tiny_records)
    model = build_model(settings, card)
    batches = eval_batches(tiny_records, split="valid", batch_size=4)
    evaluation = Evaluator(model, bound="iwae", num_samples=9)(batches)
    given = 1 if first_frame == "given" else 0
    split = card.splits["valid"]
    assert evaluation.num_steps.sum() == split.num_steps - given * split.num_sequences
    content = table.summary(evaluation, model, card, ABOUT)
    assert list(content["terms"]) == ["log_likelihood"]
    assert content["num_samples"] == 1
    text = table.table(content)
    assert "log-likelihood (exact)" in text
    assert ("(the first frame of each is given)" in text) == bool(given)
    assert "KL" not in text and "draws" not in text


def _pieces_of(x, length, piece, given):
    """The pieces of a sequence that have a frame to score, one after the other."""
    starts = range(0, max(length - given, 1), piece)
    return [x[start : min(start + piece + given, length)] for start in starts]


@pytest.mark.parametrize("kind", [{}, {"model": "vrnn"}, {"model": "wavenet"}])
@pytest.mark.parametrize(("given", "piece"), [(1, 0), (0, 4), (2, 3)])
def test_conventions_of_other_programs_by_hand(
    tiny_records, tiny_config_with, eager, kind, given, piece
):
    """Frames that are given do not count, and pieces know nothing of what is before them."""
    model = build_model(tiny_config_with(model=kind).model, read_card(tiny_records))
    evaluator = Evaluator(model, given_frames=given, piece=piece)
    batches = list(eval_batches(tiny_records, split="valid", batch_size=2))[:2]
    evaluation = evaluator(batches, seed=4)
    elbos, steps = [], []
    for index, (x, lengths, *_) in enumerate(batches):
        seed, row = batch_seed(4, index), 0
        count = max(-(-(x.shape[1] - given) // piece), 1) if piece else 1
        for frames, length in zip(x.numpy(), lengths.numpy(), strict=True):
            whole = [frames[:length]]
            elbo = 0.0
            for k, part in enumerate(_pieces_of(frames, length, piece, given) if piece else whole):
                state = model.start(1)._replace(row=tf.constant([row + k]))
                full = np.array([len(part)], np.int32)
                encoded = model.encode(part[np.newaxis], full, state)
                terms, _ = model.observe(encoded, part[np.newaxis], full, state, seed)
                elbo += np.sum(terms.log_likelihood[:, given:]) - np.sum(terms.kl)
            row += count
            elbos.append(elbo)
            steps.append(max(length - given, 0))
    np.testing.assert_array_equal(evaluation.num_steps, steps)
    np.testing.assert_allclose(evaluation.elbo, elbos, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bound", ["iwae", "fivo"])
def test_given_frames_of_other_bounds(tiny_records, tiny_config_with, eager, bound):
    """That of the sequences without given frames is that of all frames, at the weights' sides."""
    model = build_model(tiny_config_with(model={"model": "vrnn"}).model, read_card(tiny_records))
    (x, lengths, *_), *_ = eval_batches(tiny_records, split="valid", batch_size=2)
    function = score_samples if bound == "iwae" else filter_particles
    none, one, all_of_it = (
        function(model, x, lengths, (1, 2), 1, given_frames=given) for given in (0, 1, x.shape[1])
    )
    # Of one draw the bound is its weight: the terms are simply left out.
    terms = model.score(x, lengths, (1, 2))
    first = terms.log_likelihood[:, 0]
    np.testing.assert_allclose(none.bound - one.bound, first, rtol=1e-3, atol=1e-3)
    total = tf.reduce_sum(terms.log_weight - terms.log_likelihood, axis=1)
    np.testing.assert_allclose(all_of_it.bound, total, rtol=1e-3, atol=1e-3)
    assert not np.any(all_of_it.mean.log_likelihood)


@pytest.mark.parametrize(
    ("given", "piece", "note"),
    [
        (0, 0, "scored steps"),
        (1, 0, "scored steps (the first frame of each is given)"),
        (2, 40, "(in pieces of 40 frames, each by itself, the first 2 frames of each are given)"),
        (0, 40, "scored steps (in pieces of 40 frames, each by itself)"),
    ],
)
def test_conventions_are_told(model, tiny_records, given, piece, note):
    about = {**ABOUT, "given_frames": given, "piece": piece}
    content = table.summary(evaluation_of([3, 4]), model, read_card(tiny_records), about)
    assert table.table(content).splitlines()[1].endswith(note)
    assert (content["given_frames"], content["piece"]) == (given, piece)


@pytest.mark.parametrize("draws", ["shared", "independent"])
def test_report(tmp_path, tiny_records, tiny_config_with, draws):
    card = read_card(tiny_records)
    model = build_model(tiny_config_with(model={"posterior_draws": draws}).model, card)
    evaluation = evaluation_of(
        [4, 6],
        elbo=[1.0, 2.0],
        objective=[3.0, 5.0],
        importance_weighted=[2.0, 3.0],
        kl=[[1.0, 0.5], [2.0, 1.5]],
    )
    trained_with = {} if draws == "shared" else {"posterior_draws": "shared"}
    about = {**ABOUT, "posterior_draws": draws, "trained_with": trained_with}
    content = table.summary(evaluation, model, card, about)
    terms = content["terms"]
    assert terms["kl"]["per_sequence"] == pytest.approx(2.5)
    assert terms["kl_of_layer_2"]["per_step"] == pytest.approx(0.2)
    assert "bits_per_dimension" not in terms["kl"] and "raw_units" not in terms["kl"]
    # 3 nats over 10 steps; of densities of normalised values there is no length of a code.
    assert terms["elbo"]["per_step"] == pytest.approx(0.3)
    assert "bits_per_dimension" not in terms["elbo"]
    # The stds are 3 and 40 and 30: of a raw value the density is that much smaller.
    text = table.table(content)
    assert "nats of channel-normalised values" in text
    assert "(mean, std) in raw units: dx (3, 40), dy (-1, 30), pen (0, 1)" in text
    raw_per_step = 0.3 - np.log(40) - np.log(30)
    assert terms["elbo"]["raw_units"]["per_step"] == pytest.approx(raw_per_step)
    assert terms["elbo"]["raw_units"]["per_sequence"] == pytest.approx(5 * raw_per_step)
    bits = terms["elbo"]["raw_units"]["bits_per_dimension"]
    assert bits == pytest.approx(-raw_per_step / 3 / np.log(2))
    assert "nats of values in raw units (dx, dy: " in text
    assert "r: m, checkpoint best, after 1,234 updates" in text
    assert f"posterior draws {draws}, 1 of z" in text
    otherwise = "scored with posterior_draws independent, trained with shared"
    assert (otherwise in text) == (draws == "independent")
    assert ("ELBO (KL_1 + 2 * the rest: a lower bound)" in text) == (draws == "independent")
    released = "released objective (not a lower bound)"
    weighted = "importance-weighted bound (K = 1, per step)"
    if draws == "independent":
        weighted = "importance-weighted bound over both draws (K = 1, per step)"
    assert (released in text) == ("released_objective" in terms) == (draws == "independent")
    assert weighted in text and weighted == terms["importance_weighted"]["name"]
    table.write(content, tmp_path / "evaluation.json")
    assert json.loads((tmp_path / "evaluation.json").read_text()) == content


def test_report_of_many_features_names_groups(model, tiny_records):
    num = 200
    card = dataclasses.replace(
        read_card(tiny_records),
        features=tuple(Feature(f"s{i}", "real", "amplitude", "a sample") for i in range(num)),
        normalization=Normalization("scalar", (0.5,) * num, (2.0,) * num),
        modality=Modality("other"),
    )
    content = table.summary(evaluation_of([4, 6], elbo=[-1.0, -2.0]), model, card, ABOUT)
    text = table.table(content)
    assert "nats of scalar-normalised values, (mean, std) in raw units: s0 to s199 (0.5, 2)" in text
    assert "nats of values in raw units (s0 to s199: amplitude):" in text
    per_step = content["terms"]["elbo"]["raw_units"]["per_step"]
    assert per_step == pytest.approx(-0.3 - num * np.log(2))


def _blocks(text):
    """The blocks of a table: heading -> (columns, {name of a row: numbers})."""
    blocks = {}
    for block in text.split("\n\n")[1:-1]:
        unit, columns, *rows = block.splitlines()
        rows = [re.split(r"  +", re.sub(r" \+- +", "+-", row)) for row in rows]
        blocks[unit] = re.split(r"  +", columns.strip()), {row[0]: row[1:] for row in rows}
    return blocks


def test_of_a_single_group_no_error_is_told(tiny_records, model):
    groups = ["hand", "hand"]
    evaluation = evaluation_of([4, 6], groups=groups, elbo=[1.0, 2.0], kl=[[1.0, 0.5], [2.0, 1.5]])
    content = table.summary(evaluation, model, read_card(tiny_records), ABOUT)
    (_, numbers), *_ = _blocks(table.table(content)).values()
    assert numbers["ELBO"] == ["1.500+-?", "0.30000+-?"]
    assert "(1 of them: " in table.table(content)


def test_every_block_of_the_table_is_of_one_unit(tiny_records, model):
    """A KL has no scale; bits per dimension are those of values in raw units."""
    card = read_card(tiny_records)
    evaluation = evaluation_of([4, 6], elbo=[1.0, 2.0], kl=[[1.0, 0.5], [2.0, 1.5]])
    content = table.summary(evaluation, model, card, ABOUT)
    blocks = _blocks(table.table(content))
    normalised, raw, kl = blocks
    assert normalised.startswith("nats of channel-normalised values, (mean, std) in raw units: dx")
    assert raw == "nats of values in raw units (dx, dy: device units):" and kl == "nats:"
    likelihoods = ["ELBO", "reconstruction"]
    rows = {
        normalised: likelihoods,
        raw: likelihoods,
        kl: ["KL", "KL of layer 1", "KL of layer 2"],
    }
    averages = ["per sequence", "per step"]
    for heading, (columns, numbers) in blocks.items():
        assert columns == averages + ["bits/dimension"] * (heading == raw)
        assert list(numbers) == rows[heading]
        assert all(len(values) == len(columns) for values in numbers.values())
    assert blocks[raw][1]["ELBO"][2] == f"{(math.log(40 * 30) - 0.3) / 3 / math.log(2):.5f}"
    terms = content["terms"]
    assert [terms[key]["unit"] for key in ("elbo", "kl", "kl_of_layer_2")] == [
        "nats of channel-normalised values",
        "nats",
        "nats",
    ]
    assert terms["elbo"]["raw_units"]["unit"] == content["raw_unit"]
    assert content["normalization"]["units"] == ["device units", "device units", "0 or 1"]


def test_active_units_say_what_counts(tiny_records, model):
    content = table.summary(evaluation_of([4, 6]), model, read_card(tiny_records), ABOUT)
    assert content["active_unit_nats_per_step"] == 0.01
    text = table.table(content)
    assert "active units (KL above 0.01 nats per step) of layer 1, 2, ...: 1, 0" in text


def test_report_of_binary_records(tiny_records, model):
    """Probabilities have no scale: no normalisation, no raw units."""
    card = dataclasses.replace(
        read_card(tiny_records),
        features=(Feature("pixel", "binary", "0 or 1", "a pixel"),),
        normalization=Normalization("none", (0.0,), (1.0,)),
        modality=Modality("other"),
    )
    content = table.summary(
        evaluation_of([4, 6], elbo=[-1.0, -2.0]),
        model,
        card,
        ABOUT,
    )
    assert content["unit"] == "nats" and content["raw_unit"] is None
    assert "raw_units" not in content["terms"]["elbo"]
    assert content["terms"]["elbo"]["bits_per_dimension"] == pytest.approx(0.3 / np.log(2))
    assert "bits_per_dimension" not in content["terms"]["kl"]
    text = table.table(content)
    assert "raw units" not in text
    ((columns, rows),) = _blocks(text).values()
    assert columns == ["per sequence", "per step", "bits/dimension"]
    assert rows["ELBO"][2] == f"{0.3 / math.log(2):.5f}" and len(rows["KL"]) == 2


def test_report_of_one_sequence_is_json(tmp_path, tiny_records, model):
    content = table.summary(
        evaluation_of([4], elbo=[1.0]),
        model,
        read_card(tiny_records),
        ABOUT,
    )
    table.write(content, tmp_path / "evaluation.json")
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored["terms"]["elbo"]["per_sequence_standard_error"] is None


def test_no_value_is_waited_for_before_all_batches_are_scored(model, tiny_records):
    """Else a device would stand still while the next batch is read."""
    events = []

    class Pending:
        def __init__(self, tensor):
            self._tensor = tensor

        def numpy(self):
            events.append("waited")
            return self._tensor.numpy()

    evaluator = Evaluator(model)
    score = evaluator._score

    def spy(*batch):
        events.append("scored")
        return tf.nest.map_structure(Pending, score(*batch))

    evaluator._score = spy
    evaluation = evaluator(eval_batches(tiny_records, split="valid", batch_size=2))
    assert len(evaluation.elbo) == 7
    assert events[:4] == ["scored"] * 4
    assert set(events[4:]) == {"waited"}
