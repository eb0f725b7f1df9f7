"""Reports of runs that were written by hand: what stands beside the paper's numbers, and what not.

tests/reporting/test_published.py holds the paper's numbers themselves.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import flags, report
from stcn_tf.inference.grouping import Grouping
from stcn_tf.reporting import curves, differences, evaluated, tables
from stcn_tf.reporting.comparison import compare
from stcn_tf.reporting.evaluated import Evaluated
from stcn_tf.support.errors import UserError
from tests.runs_by_hand import card_of, evaluate, make_run

NUM = 1438  # lines of IAM-OnDB's validation split
GROUPS = tuple(f"form{index // 8}" for index in range(NUM))


def values(seed: int = 0, num: int = NUM, mean: float = 1100.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 300.0, num)


def kls(num: int = NUM, layers: int = 5) -> np.ndarray:
    return np.abs(np.random.default_rng(9).normal(5.0, 1.0, (num, layers)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder of runs on what passes for IAM-OnDB, MNIST and other data; not to be changed."""
    folder = tmp_path_factory.mktemp("report") / "runs"
    iam = card_of()
    run = make_run(folder / "shared", iam)
    evaluate(run, values(), kl=kls(), groups=GROUPS)
    evaluate(run, values(), kl=kls(), tight=values() + 40, num_samples=64, groups=GROUPS)
    run = make_run(folder / "independent", iam, posterior_draws="independent")
    ours = {"objective": values() + 200, "tight": values() + 9, "num_samples": 64}
    evaluate(run, values() - 400, kl=kls(), groups=GROUPS, **ours)
    run = make_run(folder / "deep/wavenet", iam, "wavenet_dense")
    evaluate(run, values(1), groups=GROUPS, num_given_frames=1)
    run = make_run(folder / "channel", card_of(normalization="channel", source="cd" * 32), "stcn")
    evaluate(run, values(2, mean=3333.0), kl=kls())
    run = make_run(folder / "digits", card_of("mnist"), "stcn", latent_sizes=(2, 2))
    evaluate(run, values(3, 10_000, -85.0), kl=kls(10_000, 2))
    run = make_run(folder / "spoken", card_of("fsdd"), "vrnn", observation="normal")
    evaluate(run, values(4, 5, 900.0), kl=kls(5, 1), groups=("a", "a", "b", "b", "c"))
    make_run(folder / "begun", iam, "rnn", made=False)
    return folder


@pytest.fixture(scope="module")
def made(runs) -> list[tables.Table]:
    """The tables of these runs."""
    found = evaluated.find([str(runs)])
    return [*tables.make((1, 2, 3, 4), found), tables.evaluations(found)]


def rows(table: tables.Table, **wanted: str) -> list[dict[str, str]]:
    """The rows whose cells are these."""
    found = [dict(zip(table.head, row.cells, strict=True)) for row in table.rows]
    return [row for row in found if all(row[name] == text for name, text in wanted.items())]


def test_every_row_has_every_cell(made):
    assert [table.title.split(":")[0] for table in made[:4]] == [f"Table {n}" for n in range(1, 5)]
    for table in made:
        assert table.rows
        assert {len(row.cells) for row in table.rows} == {len(table.head)}


def test_a_run_stands_beside_the_papers_number(made):
    (row,) = rows(made[0], Run="deep/wavenet")
    mean, error = values(1).mean(), Grouping(range(NUM), GROUPS).standard_error(values(1))
    assert row["Paper"] == "1380"
    assert row["Ours"] == f"{mean:,.2f} ± {error:.2f} (exact)"
    assert row["Unit"] == "nats of vrnn-normalised values per line"
    assert row["± over"] == "180 groups"
    assert row["First frame: paper / ours"] == "given / given"
    assert row["Parameters"] == "8,501,605 / 1,234,567"
    assert row["Updates"] == "800 of 900"
    assert row["Processor hours"] == "1.50"
    assert row["Commit"] == "0123456+"
    assert rows(made[3], Run="deep/wavenet") == [row]


def test_bounds_are_marked_and_what_is_none_is_never_shown_as_one(made):
    # Table 3 has the KLs that make a bound of what is none, and all of ours beside it.
    (shared,) = rows(made[2], Whose="shared")
    # Of two evaluations of one question that with the most draws.
    likelihood = "Log-likelihood (MNIST: negative)"
    bounds = re.fullmatch(r"≥ .* \(ELBO\); ≥ (.*) ± .* \(K = 64\)", shared[likelihood])
    assert bounds[1] == f"{values().mean() + 40:,.2f}"
    (independent,) = rows(made[2], Whose="independent")
    elbo, iwae, released = independent[likelihood].split("; ")
    assert (elbo[0], iwae[0]) == ("≥", "≥")
    for table in (made[0], made[3]):
        (shared,) = rows(table, Run="shared")
        assert shared["Ours"] == "not compared: theirs is no bound (†)"
        (independent,) = rows(table, Run="independent")
        assert independent["Ours"] == released
        assert released.startswith(f"{values().mean() + 200:,.2f}")
        assert released.endswith("(released objective: no bound)")
        for row in (shared, independent):
            assert row["Paper"] == "1796 † (no bound)"
            assert row["Notes"].startswith("with Table 3's KLs as a bound counts them ≥ 160.2")
    for table in made:
        for row in rows(table):
            if "STCN-dense" in row.get("Model", "") and row.get("Paper", "none") != "none":
                assert "no bound" in row["Paper"] and not row["Paper"].startswith(("≥", "≤"))


def test_released_floors_make_no_bound(tmp_path):
    run = make_run(tmp_path / "run", card_of(), "stcn", released_floors=True)
    evaluate(run, values(), kl=kls(), released_floors=True)
    (row,) = rows(tables.make([1], evaluated.find([str(run)]))[0], Run="run")
    assert row["Ours"].endswith("(ELBO with the released floors: no bound)")
    assert "≥" not in row["Ours"]


def test_images_have_negative_log_likelihoods(made):
    (row,) = rows(made[1], Run="digits")
    assert row["Paper"] == "≤ 82.96"
    assert row["Ours"].startswith(f"≤ {-values(3, 10_000, -85.0).mean():.2f} ±")
    assert row["Unit"] == "nats per image, negative"
    (row,) = rows(made[-1], Run="digits")
    assert row["Log-likelihood"].startswith(f"≥ {values(3, 10_000, -85.0).mean():.2f} ±")


def test_rows_that_are_cited_are_marked(made):
    for model, number in (("PixelRNN", "79.20"), ("PixelVAE", "≈ 79.02"), ("MatNets", "78.50")):
        (row,) = rows(made[1], Model=f"{model} (Bernoulli)")
        assert row["Paper"] == number
        assert row["Ours"].startswith("cited, not run: a model of images")
    assert {row.kind for row in made[1].rows if "Pixel" in row.cells[1]} == {"cited"}
    (row,) = rows(made[2], Model="Skip-VAE (Bernoulli)")
    assert row["Notes"].startswith("cited, not run: one latent for a whole image")
    # Why nothing would stand beside a number is said before there is anything.
    (row,) = rows(made[0], Model="Z-forcing (Normal)", **{"Data set": "Blizzard"})
    assert row["Notes"].startswith("their program pairs frames of one piece with those of another")
    # None of them is anybody's own.
    assert {row["Ours"] for row in rows(made[0], Model="SRNN (Normal)")} == {"not run"}


def test_kl_of_each_layer(made):
    (paper,) = rows(made[2], Whose="paper", Model="STCN-dense (GMM)", **{"Data set": "IAM-OnDB"})
    assert [paper["KL"], paper["KL of layer 2"], paper["KL of layer 6"]] == [
        "1,653.9",
        "1,287.4",
        tables.NONE,
    ]
    bounds = {
        row["Data set"]: list(row.values())[3] for row in rows(made[2], Whose="paper, as a bound")
    }
    assert bounds == {"IAM-OnDB": "≥ 160.2", "TIMIT": "≥ 65,201.3", "MNIST": "≤ 100.4"}
    (ours,) = rows(made[2], Whose="shared")
    assert ours["Unit"] == "nats of vrnn-normalised values per line"
    assert [
        ours[name] for name in ("± over", "First frame", "Parameters", "Updates", "Commit")
    ] == [*("180 groups", "scored", "1,234,567", "800 of 900", "0123456+")]
    assert ours["KL"] == f"{kls().sum(axis=1).mean():.1f}"
    assert ours["KL of layer 5"] == f"{kls()[:, 4].mean():.1f}"
    (apart,) = rows(made[2], Whose="channel")
    assert apart["KL"] == tables.NONE and "not compared" in list(apart.values())[3]


def test_all_evaluations_stand_in_a_table_of_their_own(made):
    assert [row["Run"] for row in rows(made[-1])] == [
        *("begun", "channel", "deep/wavenet", "digits", "independent", "shared", "spoken")
    ]
    (row,) = rows(made[-1], Run="spoken")
    assert row["Data set"] == "fsdd, valid"
    assert row["± over"] == "3 groups"
    assert row["Unit"] == "nats of scalar-normalised values per sequence"
    (row,) = rows(made[-1], Run="channel")
    assert row["Log-likelihood"].startswith(f"≥ {values(2, mean=3333.0).mean():,.2f}")
    (row,) = rows(made[-1], Run="begun")
    assert row["Log-likelihood"] == "not evaluated yet"


@pytest.mark.parametrize(
    ("changes", "about", "reason"),
    [
        ({"normalization": "channel"}, {}, "another scale: normalisation channel, the paper's"),
        ({"extra": {"split": "official"}}, {}, "split official of the data, the paper's is vrnn"),
        ({"sizes": (1438, 100_000)}, {}, "other data: 100,000 steps in valid, the paper's has 884"),
        ({"sizes": (20, 884_526)}, {}, "other data: 20 sequences in valid, the paper's has 1,438"),
        ({"split": "test"}, {}, "split test, the paper's is valid"),
        ({}, {"card": card_of(source="ef" * 32)}, "evaluated on other records than the run's"),
        ({}, {"num": 100}, "of the first 100 sequences only"),
        ({}, {"piece": 40}, "theirs is of other pieces: evaluate --piece=0"),
    ],
)
def test_what_does_not_compare_is_not_put_beside(tmp_path, changes, about, reason):
    run = make_run(tmp_path / "run", card_of(**changes), "stcn")
    num = about.pop("num", changes.get("sizes", (NUM,))[0])
    evaluate(run, values(num=num, mean=5555.0), kl=kls(num), **about)
    found = evaluated.find([str(run)])
    (row,) = rows(tables.make([1], found)[0], Run="run")
    assert row["Paper"] == "≥ 1338"
    assert row["Ours"].startswith(f"not compared: {reason}")
    assert row["Unit"] == row["± over"] == tables.NONE
    mean = f"{values(num=num, mean=5555.0).mean():,.2f}"
    assert not any(mean in cell for cell in row.values())
    assert mean in rows(tables.evaluations(found), Run="run")[0]["Log-likelihood"]


@pytest.mark.parametrize(
    ("dataset", "model", "changes", "about", "reason"),
    [
        ("mnist", "stcn", {"extra": {"binarization": "dynamic"}}, {}, "binarization dynamic of"),
        ("timit", "vrnn", {}, {}, "Chung et al. did not say how they cut and scaled TIMIT"),
        ("timit", "swavenet", {}, {}, "theirs is of other pieces: evaluate --piece=40 --given"),
        ("timit", "swavenet", {}, {"piece": 40}, "the first frame of a piece is scored, theirs g"),
        ("timit", "swavenet", {}, {"piece": 40, "given_frames": 1}, ""),
    ],
)
def test_reasons_of_other_data_sets(tmp_path, dataset, model, changes, about, reason):
    observation = {"observation": "normal"} if dataset == "timit" else {}
    card = card_of(dataset, **changes)
    run = make_run(tmp_path / "run", card, model, **observation)
    num = card.splits["test"].num_sequences
    evaluate(run, values(num=num), kl=kls(num, 1), **about)
    table = tables.make([2 if dataset == "mnist" else 1], evaluated.find([str(run)]))[0]
    (row,) = rows(table, Run="run")
    if reason:
        assert row["Ours"].startswith(f"not compared: {reason}")
    else:
        assert row["Ours"].startswith("≥ ")
        assert row["First frame: paper / ours"] == "given / given"
        assert row["Notes"].endswith("pieces of 40 frames, each by itself; shared draws")


@pytest.mark.parametrize("given", [0, 1])
def test_how_to_leave_out_the_first_frame_as_theirs(tmp_path, given):
    run = make_run(tmp_path / "run", card_of(), "wavenet_dense")
    evaluate(run, values(), given_frames=given)
    (row,) = rows(tables.make([1], evaluated.find([str(run)]))[0], Run="run")
    assert row["First frame: paper / ours"] == ("given / given" if given else "given / scored")
    assert row["Notes"].endswith("evaluate --given_frames=1") is not bool(given)


def test_the_split_of_the_paper_comes_first(tmp_path):
    run = make_run(tmp_path / "run", card_of(), "stcn")
    evaluate(run, values(mean=1.0), kl=kls(), split="train", file="a")
    evaluate(run, values(mean=2.0), kl=kls(), update=100, file="b")
    evaluate(run, values(mean=4000.0), kl=kls(), update=900, file="c")
    (row,) = rows(tables.make([1], evaluated.find([str(run)]))[0], Run="run")
    assert row["Ours"].startswith(f"≥ {values(mean=4000.0).mean():,.2f}")


# ------------------------------------------------------------------------------ the pages


@pytest.fixture
def run_report(parse_flags):
    """Function (*arguments): runs the command in this process."""
    defined = []

    def run(*arguments: str) -> None:
        if not defined:
            defined.append(parse_flags(flags.define_report))
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["test", *arguments])
        report.main()

    return run


def test_a_text_stands_at_the_head(runs, tmp_path, run_report):
    text = tmp_path / "text.md"
    text.write_text(
        "# What <it> says\n\nOne line\nand *another*,\n100 % of `a --b`.\n\n\nThe end.\n"
    )
    run_report(f"--runs={runs}/begun", f"--out={tmp_path}/r", "--table=3", f"--text={text}")
    page = ElementTree.fromstring((tmp_path / "r/report.html").read_text())
    assert page.findtext("body/h2") == "What <it> says"
    assert [p.text for p in page.findall("body/p")][:2] == [
        "One line and *another*, 100 % of `a --b`.",
        "The end.",
    ]
    latex = (tmp_path / "r/report.tex").read_text()
    assert r"\subsection*{What $<$it$>$ says}" in latex
    assert r"\noindent One line and {*}another{*}, 100 \% of " in latex
    assert r"of \textasciigrave{}a -{}-b\textasciigrave{}." in latex
    markdown = (tmp_path / "r/report.md").read_text()
    assert r"One line and \*another\*, 100 % of \`a --b\`." in markdown
    text.write_bytes(b"\xff\xfe\x00")
    missing = tmp_path / "no.md"
    for bad, message in ((text, "not UTF-8"), (missing, "No such file"), (tmp_path, "Is a dir")):
        with pytest.raises(UserError, match=f"^--text={bad}: {message}"):
            run_report(f"--runs={runs}/begun", f"--out={tmp_path}/r", f"--text={bad}")


def test_three_pages_that_say_the_same(runs, tmp_path, run_report, capsys):
    out = tmp_path / "report"
    run_report(f"--runs={runs}", f"--out={out}", "--table=1,3")
    assert capsys.readouterr().out == f"7 runs, 5 tables, 0 pictures: {out}/report.html\n"
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.md", "report.tex"]
    page = ElementTree.fromstring((out / "report.html").read_text())
    found = page.findall("body/div/table")
    assert len(found) == 5
    all_runs = evaluated.find([str(runs)])
    expected = [tables.evaluations(all_runs), *differences.tables(all_runs)]
    expected += tables.make((1, 3), all_runs)
    for table, own in zip(found, expected, strict=True):
        assert table.findtext("caption") == own.title
        assert [cell.text for cell in table.iterfind("thead/tr/th[@scope='col']")] == [*own.head]
        cells = [[cell.text or "" for cell in row] for row in table.iterfind("tbody/tr")]
        assert cells == [[*row.cells] for row in own.rows]
        assert all(row[0].get("scope") == "row" for row in table.iterfind("tbody/tr"))
    # A person without a mouse reaches what is scrolled.
    assert all(region.get("tabindex") == "0" for region in page.iterfind("body/div"))
    assert "prefers-color-scheme: dark" in page.findtext("head/style")
    markdown = (out / "report.md").read_text().splitlines()
    lines = [re.sub(r"\\(.)", r"\1", line) for line in markdown if line.startswith("| ")]
    assert lines == [
        f"| {' | '.join(cells)} |"
        for table in expected
        for cells in (table.head, *(row.cells for row in table.rows))
    ]
    check_latex(out / "report.tex", sum(1 + len(table.rows) for table in expected))


def check_latex(file: Path, num_rows: int) -> None:
    """That it compiles, where a compiler is; everywhere that nothing in it is left open."""
    text = file.read_text()
    assert text.isascii() or all(ord(character) < 384 for character in text)
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    plain = re.sub(r"\\[\\{}&%$#_]", "", text)
    depth = 0
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert plain.count("$") % 2 == 0 and "#" not in plain and "%" not in plain
    assert len([line for line in text.splitlines() if line.endswith(r"\\")]) == num_rows
    if compiler := shutil.which("pdflatex"):
        subprocess.run([compiler, "-interaction=batchmode", file.name], cwd=file.parent, check=True)


def test_names_from_elsewhere_are_text_and_nothing_else(tmp_path, run_report):
    name = "<script>alert(1)</script> & $x_1$ \\input{a} | 50% #1 ~^ \x1b[2J é 漢"
    run = make_run(tmp_path / "runs" / name.replace("/", "∕"), card_of(), "stcn")
    evaluate(run, values(), kl=kls())
    run_report(f"--runs={tmp_path / 'runs'}", f"--out={tmp_path / 'out'}")
    page = (tmp_path / "out/report.html").read_text()
    assert "<script" not in page and "\x1b" not in page
    root = ElementTree.fromstring(page)
    assert any("<script>alert(1)<" in (cell.text or "") for cell in root.iter("td"))
    latex = (tmp_path / "out/report.tex").read_text()
    assert r"\textbackslash{}input\{a\}" in latex and "漢" not in latex
    check_latex(tmp_path / "out/report.tex", latex.count("\\\\\n"))
    for line in (tmp_path / "out/report.md").read_text().splitlines():
        assert "<script>" not in line.replace(r"\<", "")


def test_nothing_is_read_from_a_network(tmp_path, trained_run, run_report):
    run_report(f"--runs={trained_run}", f"--out={tmp_path / 'out'}")
    page = (tmp_path / "out/report.html").read_text()
    root = ElementTree.fromstring(page)
    links = [
        value for each in root.iter() for name, value in each.items() if name in ("src", "href")
    ]
    assert len(links) == 1 and links[0].startswith("data:image/")
    assert not re.search(r"https?:|url\(|@import|<script|<link", page)
    (image,) = root.iter("img")
    assert image.get("alt") == root.findtext("body/figure/figcaption") != ""
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"curves_0.png", "curves_0.svg"}


def test_a_report_replaces_a_report_and_nothing_else(runs, tmp_path, run_report):
    out = tmp_path / "out"
    run_report(f"--runs={runs / 'shared'}", f"--out={out}")
    before = (out / "report.html").read_text()
    run_report(f"--runs={runs / 'digits'}", f"--out={out}")
    assert (out / "report.html").read_text() != before
    (out / "notes.txt").write_text("mine")
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match=r"^--out=.*: holds other files than a report's; accepted"):
        run_report(f"--runs={runs / 'shared'}", f"--out={out}")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == kept
    with pytest.raises(UserError, match="holds other files than a report's"):
        run_report(f"--runs={runs / 'shared'}", f"--out={runs / 'shared'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), r"^accepted: --runs=DIR,... --out=FOLDER, or --compare=A,B"),
        (("--runs={runs}",), r"^accepted: --runs=DIR,... --out=FOLDER"),
        (("--runs={tmp}", "--out={tmp}/o"), r"^--runs=.*: no run directory; accepted: runs,"),
        (("--compare={runs}/shared",), r"^--compare=.*: accepted: two, A,B"),
        (("--compare=a,b", "--out={tmp}/o"), r"^--compare: accepted: by itself"),
        (("--compare=a,b",), "^a: No such file or directory$"),
        (("--compare={runs},{runs}",), "no run directory; accepted: a run, or the file of an eval"),
        (("--compare={runs}/begun,{runs}/shared",), "begun: has no evaluation: run stcn_tf.evalu"),
        (
            ("--runs={runs}/shared", "--figure=6", "--out={tmp}/o"),
            "^--figure=6: accepted with trained --runs of image records",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, runs, tmp_path, run_report):
    with pytest.raises(UserError, match=message):
        run_report(*(argument.format(runs=runs, tmp=tmp_path) for argument in arguments))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--runs=.", "--out=o", "--table=5"), 2),
        (("--compare=x,y",), 2),
        (("--runs={}", "--out=o"), 0),
        (("--compare={}/shared,{}/independent",), 0),
    ],
)
def test_the_command_needs_no_tensorflow(arguments, code, runs, tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "stcn_tf.report"]
        + [argument.replace("{}", str(runs)) for argument in arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = [line for line in done.stderr.splitlines() if not line.startswith("import time")]
    assert done.returncode == code, told
    assert len(told) == bool(code) and all(line.startswith("error: ") for line in told)
    assert not re.search(r"\| +tensorflow$", done.stderr, re.M)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no evaluation of stcn_tf.evaluate"),
        ("{", "not JSON"),
        ('{"model": 3}', r"\(model: accepted: str\)"),
        (None, r"terms: elbo: accepted: numbers per sequence"),
    ],
)
def test_damaged_evaluations_are_told(tmp_path, text, message):
    run = make_run(tmp_path / "run", card_of(), "stcn")
    file = evaluate(run, values(), kl=kls())
    if text is None:
        content = json.loads(file.read_text())
        content["terms"]["elbo"]["per_sequence"] = "<b>many</b>"
        text = json.dumps(content)
    file.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        evaluated.find([str(run)])
    assert str(file) in str(error.value)


def test_what_is_not_known_of_a_run(tmp_path):
    run = make_run(tmp_path / "run", card_of(), "stcn", made=False)
    file = evaluate(run, values(), kl=kls())
    content = json.loads(file.read_text())
    # As where a sequence is impossible.
    content["terms"]["elbo"] |= dict.fromkeys(content["terms"]["elbo"].keys() - {"name"})
    file.write_text(json.dumps(content))
    (run / "history.json").write_text('{"starts": [3, {"source": null, "gpus": "many"}]}')
    (row,) = rows(tables.make([1], evaluated.find([str(run)]))[0], Run="run")
    assert row["Commit"] == row["Processor hours"] == "?"
    assert row["Parameters"] == "12,621,153 / ?"
    assert row["Updates"] == "800"
    assert row["Ours"] == "not finite (ELBO)"


def test_curves_are_those_of_tensorboard_and_take_back_what_it_does(trained_run, tmp_path):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.compat.proto import event_pb2
    from tensorboard.util.tensor_util import make_ndarray

    folder = tmp_path / "events"
    shutil.copytree(trained_run / "events" / "valid", folder)
    events = EventAccumulator(str(folder))
    events.Reload()
    shown = events.Tensors("selected/per_sequence")
    expected = {event.step: float(make_ndarray(event.tensor_proto)) for event in shown}
    assert sorted(expected) == [4, 8]
    assert curves.evaluations(folder) == expected
    # A later start goes on after update 5, and comes to another number.
    (file,) = folder.iterdir()
    again = folder / "events.out.tfevents.9999999999.again"
    start = event_pb2.Event(step=6, session_log={"status": event_pb2.SessionLog.START})
    with tf.io.TFRecordWriter(str(again)) as writer:
        writer.write(start.SerializeToString())
    assert curves.evaluations(folder) == {4: expected[4]}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Tensors("selected/per_sequence")] == [4]
    again.unlink()
    # A trainer is writing: what is not whole yet is left out.
    file.write_bytes(file.read_bytes()[:-3])
    assert curves.evaluations(folder).keys() <= {4, 8}
    file.write_bytes(os.urandom(500))
    assert curves.evaluations(folder) == {}


# ------------------------------------------------------------------- two runs on the same lines


def test_the_difference_is_that_of_each_sequence(tmp_path):
    steps, groups = np.array([10, 30, 20, 20]), ("a", "b", "a", "")
    names = ("p", "q", "r", "s")
    first, second = np.array([5.0, 6.0, 11.0, 2.0]), np.array([4.0, 6.5, 9.0, 2.5])
    kl = np.array([[1.0, 2.0]] * 4)
    card, order = card_of(), [2, 0, 3, 1]
    a = make_run(tmp_path / "a", card, "stcn")
    evaluate(a, first, kl=kl, steps=steps, groups=groups, names=names)
    b = make_run(tmp_path / "b", card, "vrnn")
    its = {"steps": steps[order], "groups": tuple(groups[i] for i in order)}
    evaluate(b, second[order], kl=kl[order] / 2, names=tuple(names[i] for i in order), **its)
    found = compare(str(a), str(b))
    elbo, reconstruction, total = found.differences
    difference = first - second
    assert [d.name for d in found.differences] == ["ELBO", "reconstruction", "KL"]
    assert elbo.per_sequence == pytest.approx(difference.mean())
    grouping = Grouping(names, groups)
    assert elbo.per_sequence_error == pytest.approx(grouping.standard_error(difference))
    # Residuals from the mean 0.5: a 0.5 + 1.5, b -1, s -1.
    assert elbo.per_sequence_error == pytest.approx(math.sqrt(3 / 2 * (4 + 1 + 1)) / 4)
    assert elbo.per_step == pytest.approx(difference.sum() / 80)
    assert total.per_sequence == pytest.approx(1.5)
    assert reconstruction.per_sequence == pytest.approx(2.0)
    text = found.text()
    assert "on the same 4 sequences of iamondb, split valid; nats of vrnn-normalised values" in text
    assert "over groups (3 of them" in text
    assert f"{difference.mean():.3f} +- {elbo.per_sequence_error:8.3f}" in text
    back = compare(str(b), str(a)).differences[0]
    assert (back.per_sequence, back.per_sequence_error) == pytest.approx(
        (-elbo.per_sequence, elbo.per_sequence_error)
    )
    assert all(d.per_sequence == d.per_sequence_error == 0 for d in compare(str(a), str(a))[4])


def test_the_error_is_smaller_than_that_of_either_run(runs, tmp_path):
    a, b = (
        Evaluated.read(runs / name / "evaluations/iwae.json") for name in ("shared", "independent")
    )
    found = compare(str(a.path), str(b.path))
    names = [difference.name for difference in found.differences]
    # What the two are called is said of both where it differs.
    assert names == [
        "ELBO - ELBO (KL_1 + 2 * the rest: a lower bound)",
        "importance-weighted bound (K = 64, per step) - importance-weighted bound over both draws "
        "(K = 64, per step)",
        *("reconstruction", "KL"),
    ]
    errors = [numbers.term("importance_weighted")[1] for numbers in (a, b)]
    assert found.differences[1].per_sequence == pytest.approx(31.0)
    assert found.differences[1].per_sequence_error < 1e-6 < min(errors)


OTHERS = {
    "unit": ({"normalization": "channel"}, {}, "different unit: nats of vrnn-.* and nats of chan"),
    "scale": ({"stds": True}, {}, "different normalisation, std: "),
    "records": ({"source": "cd" * 32}, {}, r"different records \(source\): abab.* and cdcd"),
    "split": ({"split": "test"}, {}, "different split: valid and test"),
    "pieces": ({}, {"piece": 40}, "different pieces: 0 and 40"),
    "given frames": ({}, {"given_frames": 1}, "different given frames: 0 and 1"),
    "floors": ({}, {"released_floors": True}, "different released floors: False and True"),
    "sequences": ({}, {"num": 5, "names": tuple("uvwxy")}, "different sequences: 6 and 5"),
    "some": ({}, {"num": 5, "names": ("s0", *"wxyz")}, "different sequences: 6 and 5"),
    "other sequences": ({}, {"names": tuple("uvwxyz")}, "different sequences: 6 and 6"),
    "steps": ({}, {"steps": np.full(6, 11)}, "different scored steps: 60 and 66"),
}


@pytest.mark.parametrize(("changes", "about", "message"), OTHERS.values(), ids=OTHERS)
def test_what_is_of_another_kind_is_refused(tmp_path, changes, about, message):
    a = make_run(tmp_path / "a", card_of(), "stcn")
    evaluate(a, values(num=6), kl=kls(6))
    card = card_of(**{name: value for name, value in changes.items() if name != "stds"})
    b = make_run(tmp_path / "b", card, "stcn")
    num = about.pop("num", 6)
    file = evaluate(b, values(num=num), **{"kl": kls(num)} | about)
    if "stds" in changes:
        content = json.loads(file.read_text())
        content["normalization"]["std"][0] *= 2
        file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        compare(str(a), str(b))
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("on the same records and split")


def test_of_all_and_of_some_those_that_both_have_are_compared(tmp_path):
    runs = [make_run(tmp_path / name, card_of(), "stcn") for name in "ab"]
    groups = tuple("aabbcc")
    evaluate(runs[0], values(num=6), kl=kls(6), groups=groups)
    others = values(num=6)[1:4] - [1.0, 2.0, 6.0]
    evaluate(runs[1], others, kl=kls(3), groups=groups[1:4], names=("s1", "s2", "s3"))
    for pair, sign, said in ((runs, 1, "the 6 of A and the 3 of B"), (runs[::-1], -1, "the 3 of")):
        found = compare(*map(str, pair))
        assert found.num_sequences == 3
        assert found.differences[0].per_sequence == pytest.approx(sign * 3.0)
        # Residuals: a -2, b -1 + 3.
        assert found.differences[0].per_sequence_error == pytest.approx(math.sqrt(2 * (4 + 4)) / 3)
        assert said in found.text()


def test_exact_and_bound_differ_by_so_much_at_most(tmp_path):
    exact, bounds = (make_run(tmp_path / n, card_of(), m) for n, m in (("a", "rnn"), ("b", "stcn")))
    evaluate(exact, values(num=6))
    evaluate(bounds, values(num=6) - 5, kl=kls(6), tight=values(num=6) - 3, num_samples=8)
    found = compare(str(exact), str(bounds))
    iwae = "importance-weighted bound (K = 8, per step)"
    assert {d.name: round(d.per_sequence, 6) for d in found.differences} == {
        "log-likelihood (exact) - ELBO": 5.0,
        f"log-likelihood (exact) - {iwae}": 3.0,
    }
    said = "is exact, the other a lower bound: of the log-likelihoods themselves A - B is at"
    assert f"A {said} most this" in found.text()
    found = compare(str(bounds), str(exact))
    assert [d.per_sequence for d in found.differences] == pytest.approx([-5.0, -3.0])
    assert f"B {said} least this" in found.text()


def test_with_floors_an_exact_value_and_a_bound_are_not_compared(tmp_path):
    runs = [make_run(tmp_path / name, card_of(), "stcn") for name in "ab"]
    for run, kl in zip(runs, (None, kls(6)), strict=True):
        evaluate(run, values(num=6), kl=kl, released_floors=True)
    with pytest.raises(UserError, match="different kind of likelihood: exact and bounds"):
        compare(*map(str, runs))


def test_bounds_of_other_numbers_of_draws_are_left_out(tmp_path):
    runs = [make_run(tmp_path / name, card_of(), "stcn") for name in "ab"]
    for run, draws in zip(runs, (16, 64), strict=True):
        evaluate(run, values(num=6), kl=kls(6), tight=values(num=6) + 1, num_samples=draws)
    found = compare(*map(str, runs))
    assert [d.name for d in found.differences] == ["ELBO", "reconstruction", "KL"]
    assert "not compared, since of 16 and 64 draws" in found.text()


def test_of_runs_the_same_question_is_compared(tmp_path):
    """The latest evaluations may be of different ones."""
    a, b = (make_run(tmp_path / name, card_of(), "stcn") for name in "ab")
    evaluate(a, values(num=6), kl=kls(6), update=900, piece=40, file="pieces")
    evaluate(a, values(num=6), kl=kls(6), update=800, file="whole")
    evaluate(b, values(num=6) - 3, kl=kls(6), update=700, file="whole")
    found = compare(str(a), str(b))
    assert [each.path.name for each in (found.a, found.b)] == ["whole.json", "whole.json"]
    assert found.differences[0].per_sequence == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: None, "No such file or directory"),
        (lambda text: "", "accepted: columns sequence, group, steps"),
        (lambda text: text.replace("elbo", "elbow"), "of another evaluation than .*json"),
        (lambda text: text[: text.index("s5")], "of another evaluation than .*json: evaluate anew"),
        (lambda text: re.sub(r"(s0,,10),", r"\1,1", text), "of another evaluation"),
        (lambda text: text.replace("s0,,10", "s0,,ten"), "accepted: numbers"),
        (lambda text: text + "s6,,3\n", "accepted: columns"),
    ],
)
def test_damaged_files_of_sequences_are_told(tmp_path, damage, message):
    run = make_run(tmp_path / "run", card_of(), "stcn")
    file = evaluate(run, values(num=6), kl=kls(6))
    each = file.with_suffix(".csv")
    text = damage(each.read_text())
    each.write_text(text) if text is not None else each.unlink()
    with pytest.raises(UserError, match=message) as error:
        compare(str(file), str(file))
    assert str(error.value).startswith(str(each))


def test_what_evaluate_writes_is_read(tiny_run, tiny_records, tmp_path, parse_flags, eager):
    """Weights scored with two approximate posteriors, on the same sequences."""
    from stcn_tf import evaluate as command

    parse_flags(flags.define_evaluate, "--run_dir=r", f"--data={tiny_records}", "--bound=iwae")
    for scale in ("std", "variance"):
        run = shutil.copytree(tiny_run, tmp_path / scale)
        own = (f"--run_dir={run}", f"--posterior_scale={scale}", "--num_samples=2")
        flags.FLAGS(["test", *own, "--batch_size=7"])
        command.main()
    runs = evaluated.find([str(tmp_path)])
    assert [len(run.evaluations) for run in runs] == [1, 1]
    terms = [run.evaluations[0].sequences().terms for run in runs]
    found = compare(str(tmp_path / "std"), str(tmp_path / "variance"))
    expected = [float(np.mean(terms[0][key] - terms[1][key])) for key in ("elbo", "kl")]
    assert [found.differences[i].per_sequence for i in (0, -1)] == pytest.approx(expected)
    assert abs(expected[0]) > 1.0
    (row, _) = rows(tables.evaluations(runs))
    assert row["Data set"] == "tiny, valid" and row["Sequences"] == "7"


# ------------------------------------------------------------------------------- the figures


def test_figures_of_models(tiny_run, trained_run, tiny_image_run, tiny_records, tiny_images, eager):
    """Each model's ink below real lines; each one's reconstructions of the same images; a grid."""
    from stcn_tf.reporting import figures

    runs = evaluated.find([tiny_run, str(trained_run), tiny_image_run])
    names = [f"{run.name} ({run.directory.config.model.model})" for run in runs]
    with pytest.raises(UserError, match="are not at .*: accepted: --data=FOLDER"):
        figures.draw((4,), runs, [tiny_records])
    told = []
    pictures = figures.draw((3, 4, 6), runs, [tiny_images, tiny_records], told.append)
    assert [picture.name for picture in pictures] == ["figure_3_0", "figure_4_0", "figure_6_0_0"]
    assert told[0] == f"figure 3: {runs[0].name}, {runs[1].name}"
    ink, rebuilt, grid = (picture.figure.axes[0] for picture in pictures)
    labels = [text.get_text().removesuffix(", cut off") for text in ink.texts]
    assert labels == ["tiny, written"] * 3 + [
        f"{name}: generated" for name in names[:2] for _ in range(3)
    ]
    # Of four images: itself, and what the model makes of it; its probabilities; its residual.
    assert len(rebuilt.images) == 4 * 3 * 2
    assert len(grid.images) == 100
    captions = [text.get_text() for text in rebuilt.texts]
    assert sum("-ELBO" in caption.replace("\n", " ") for caption in captions) == 4


def test_an_image_comparison_is_laid_out_as_the_papers():
    from stcn_tf import media

    rng = np.random.default_rng(0)
    originals = (rng.random((2, 3, 5)) > 0.5).astype(float)
    likely = [rng.random((2, 3, 5)) for _ in range(3)]
    hard = [np.round(model) for model in likely]
    labels = [[f"m{model} of {image}" for image in range(2)] for model in range(3)]
    figure = media.draw_image_comparison(originals, hard, likely, labels)
    drawn = [np.asarray(image.get_array()) for image in figure.axes[0].images]
    assert len(drawn) == 2 * 3 * 4
    for image in range(2):
        first, second, third = (drawn[12 * image + 4 * row :][:4] for row in range(3))
        np.testing.assert_array_equal(first[0][..., 0], originals[image])
        assert (second[0] == 1).all() and (third[0] == 1).all()
        for model in range(3):
            np.testing.assert_array_equal(first[1 + model][..., 1], hard[model][image])
            np.testing.assert_allclose(second[1 + model][..., 2], likely[model][image])
            far = np.abs(originals[image] - likely[model][image])
            red, blue = third[1 + model][..., 0], third[1 + model][..., 2]
            assert (red > blue)[far > 0.6].all() and (red < blue)[far < 0.4].all()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert [text for text in texts if text.startswith("m")] == [
        f"m{model} of {image}" for image in range(2) for model in range(3)
    ]
    with pytest.raises(ValueError, match="labels has 1 entries for 2 sequences"):
        media.draw_image_comparison(originals, hard, likely, [["only one"]] * 3)
