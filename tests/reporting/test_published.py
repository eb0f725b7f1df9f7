"""experiments/paper/tables.json against the paper: typed here, and read from it where it is."""

import os
import re
from pathlib import Path

import pytest

from stcn_tf.models.registry import make_settings
from stcn_tf.reporting import published

TABLES = published.tables()
DATASETS = ("timit", "blizzard", "iamondb", "deepwriting")
# Table 4, nats per sequence; the rows of Table 1 are those marked with 1.
TABLE_4 = """
wavenet normal: -7443 3784 1053 337
wavenet gmm 1: 30188 8190 1381 612
wavenet_dense normal: -8579 3712 1030 323
wavenet_dense gmm 1: 30636 8212 1380 642
rnn normal: -1900 3539 1016 363
rnn gmm 1: 26643 7413 1358 528
vrnn normal 1: ~30235 ~9516 ~1354 >=495
vrnn gmm 1: ~29604 ~9392 ~1384 >=673
srnn normal 1: >=60550 >=11991 n/a n/a
z_forcing normal 1: >=70469 >=15430 n/a n/a
variational_bi_lstm normal 1: >=73976 >=17319 n/a n/a
swavenet normal 1: >=72463 >=15708 >=1301 n/a
stcn normal: >=64913 >=13273 >=1327 >=575
stcn gmm 1: >=69195 >=15800 >=1338 >=605
stcn_dense normal: >=70294 >=15950 >=1729 >=740
stcn_dense gmm 1: >=71386 >=16288 >=1796 >=797
stcn_dense_large gmm 1: >=77438 >=17128 n/a n/a
"""
TABLE_2 = """
wavenet: 80.42
wavenet_dense: 80.35
rnn: 80.39
vrnn: <=80.22
stcn: <=82.96
stcn_dense: <=60.75
pixelvae: ~79.02
p_forcing: 79.58
pixelrnn: 79.20
matnets: 78.50
z_forcing: <=80.09
variational_bi_lstm: <=79.78
"""
TABLE_3 = """
iamondb stcn_dense: 1796.3 1653.9 17.9 1287.4 305.3 41.0 2.4
iamondb stcn: 1339.2 964.2 846.0 105.2 12.9 0.1 0.0
timit stcn_dense: 71385.9 22297.5 16113.0 5641.6 529.0 8.3 5.7
timit stcn: 69194.9 23118.3 22275.5 487.2 355.5 0.0 0.0
mnist stcn_dense: 60.7 39.7 0.0 0.0 0.0 0.5 2.0 37.2
mnist stcn: 83.0 14.1 6.3 3.1 2.6 2.1 0.0 0.0
mnist skip_vae: 82.6 9.3 9.3
"""


def typed(text: str) -> list[tuple[list[str], list[str]]]:
    return [tuple(part.split() for part in line.split(":")) for line in text.split("\n") if line]


def test_tables_1_and_4():
    expected = {
        (dataset, model, observation): (number, (1, 4) if table else (4,))
        for (model, observation, *table), numbers in typed(TABLE_4)
        for dataset, number in zip(DATASETS, numbers, strict=True)
        if number != "n/a"
    }
    found = [n for n in TABLES.numbers if n.tables not in ((2,), ())]
    keys = [(n.dataset, n.model, n.observation) for n in found]
    assert len(set(keys)) == len(keys)
    pairs = [(number.number.replace(" ", ""), number.tables) for number in found]
    assert dict(zip(keys, pairs, strict=True)) == expected


def test_table_2():
    found = {
        number.model: number.number.replace(" ", "")
        for number in TABLES.numbers
        if number.tables == (2,) and (number.dataset, number.observation) == ("mnist", "")
    }
    assert found == {model: number for (model,), (number,) in typed(TABLE_2)}
    assert len(found) == sum(number.tables == (2,) for number in TABLES.numbers)


def test_table_3():
    found = [
        [n.dataset, n.model, n.number.split()[1], f"{n.kl:.1f}", *(f"{v:.1f}" for v in layers)]
        for n in TABLES.table3
        for layers in [n.kl_of_layers]
    ]
    assert found == [[*names, *numbers] for names, numbers in typed(TABLE_3)]
    for number in TABLES.table3:
        assert number.kind == ("<=" if number.dataset == "mnist" else ">=")
        # Printed with a decimal each.
        assert sum(number.kl_of_layers) == pytest.approx(number.kl, abs=0.11)


@pytest.mark.reference
@pytest.mark.skipif("STCN_REFERENCE" not in os.environ, reason="needs STCN_REFERENCE")
def test_what_is_typed_here_is_the_papers():
    text = Path(os.environ["STCN_REFERENCE"], "paper.md").read_text()
    cells = re.sub(
        r"\\(approx|geq|leq)\s*", lambda m: {"a": "~", "g": ">=", "l": "<="}[m[1][0]], text
    )
    cells = re.sub(r"\\mathbf{([\d.]+)}|[$*]|<sup>.*?</sup>", lambda m: m[1] or "", cells)
    rows = [
        [cell.strip() for cell in line.split("\t")] for line in cells.splitlines() if "\t" in line
    ]
    numbers = {number for row in rows for number in row}
    for (name, observation, *tables), values in typed(TABLE_4):
        printed = {"variational_bi_lstm": "Var. Bi-LSTM"}.get(name, TABLES.models[name])
        printed = f"{printed}({TABLES.observations[observation]})".replace(" ", "")
        found = [row[1:] for row in rows if row[0].replace(" ", "").startswith(printed)]
        assert found == [values] * (1 + bool(tables)), name
    for _, (number,) in typed(TABLE_2):
        assert number in numbers
    for (dataset, model), values in typed(TABLE_3):
        name = f"{TABLES.datasets[dataset].name} ({TABLES.models[model]})"
        (row,) = [row for row in rows if row[0] == name]
        assert [cell for cell in row[1:] if cell != "n/a"] == values


def test_what_the_paper_prints_as_a_bound_and_is_none():
    """Independent draws of STCN-dense; with the KLs of Table 3 counted as a bound counts them."""
    for number in TABLES.numbers + TABLES.table3:
        is_dense = number.model in ("stcn_dense", "stcn_dense_large") and number.value is not None
        assert number.is_bound == (not is_dense)
    bounds = {n.dataset: n.with_all_kl for n in TABLES.table3 if not n.is_bound}
    assert bounds == pytest.approx({"iamondb": 160.2, "timit": 65201.3, "mnist": 100.4})
    assert all(n.with_all_kl is None for n in TABLES.table3 if n.is_bound)


def test_every_number_says_what_it_is():
    for number in TABLES.numbers + TABLES.table3 + TABLES.peers:
        assert number.dataset in TABLES.datasets
        assert TABLES.title(number)
        assert number.kind in ("exact", ">=", "<=", "~", None)
        assert (number.kind is None) == (number.value is None)
        assert number.kind != ("<=" if number.dataset != "mnist" else ">=")
        assert number.first_frame in ("scored", "given", "unclear", "")
        if number in TABLES.numbers:
            assert bool(number.flagfile) != bool(number.cited)
    assert all(number.source for number in TABLES.peers)
    # Each once.
    own = {(n.dataset, n.model, n.observation, n.number) for n in TABLES.numbers}
    theirs = [(n.dataset, n.model, n.observation, n.number) for n in TABLES.peers]
    assert not own & set(theirs)
    assert len(set(theirs)) == len(theirs)


@pytest.mark.parametrize(
    ("dataset", "features", "model", "settings", "expected"),
    [
        ("iamondb", 3, "stcn_dense", {}, "STCN-dense (GMM)"),
        ("iamondb", 3, "stcn_dense", {"num_filters": 512}, "STCN-dense (GMM)"),
        ("timit", 200, "stcn_dense", {"num_filters": 512}, "STCN-dense-large (GMM)"),
        ("iamondb", 3, "rnn", {"observation": "bivariate_gmm"}, "RNN (GMM)"),
        ("iamondb", 3, "swavenet", {"observation": "bivariate"}, "SWaveNet (Normal)"),
        ("iamondb", 3, "rnn", {"observation": "ordered_gmm"}, "RNN-hier (GMM in order)"),
        ("mnist", 1, "stcn", {}, "STCN (Bernoulli)"),
        ("timit", 200, "rnn", {}, "RNN (GMM)"),
        ("timit", 1, "rnn", {}, "RNN-flat (GMM)"),
        (
            "timit",
            200,
            "f_srnn",
            {"observation": "featurewise_gmm", "num_components": 1},
            "F-SRNN (Normal of each feature)",
        ),
        ("fsdd", 200, "stcn", {}, None),
        ("iamondb", 3, "srnn", {"observation": "normal"}, None),
    ],
)
def test_which_number_is_that_of_a_model(dataset, features, model, settings, expected):
    settings = make_settings(model, **settings)
    numbers = TABLES.numbers + tuple(n for n in TABLES.peers if not n.cited and n.flagfile)
    found = [TABLES.title(n) for n in numbers if n.is_of(dataset, settings, features)]
    assert found == ([expected] if expected else [])
