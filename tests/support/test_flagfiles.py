import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stcn_tf.support import flagfiles
from stcn_tf.support.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder of flagfiles as experiments/ is one, which is not the current folder."""
    base = tmp_path / "project" / "experiments" / "base"
    base.mkdir(parents=True)
    (base / "small.flags").write_text("--size=1\n")
    (base.parent / "row.flags").write_text(
        "# A comment.\n--flagfile=experiments/base/small.flags\n  // another\n\n  --rate=2 \n"
    )
    (base.parent / "beside.flags").write_text("-flagfile=base/small.flags\n--kind=gmm\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "project"


def test_lines_take_the_place_of_the_flagfile(project):
    row = f"{project}/experiments/row.flags"
    expected = ["--a=1", "--size=1", "--rate=2", "--b=2"]
    for given in ([f"--flagfile={row}"], [f"-flagfile={row}"], ["--flagfile", row]):
        assert flagfiles.expand(["--a=1", *given, "--b=2"]) == expected
    assert flagfiles.expand(["--a", "--", "--flagfile=x"]) == ["--a", "--", "--flagfile=x"]


def test_what_a_flagfile_names_belongs_to_it(project, monkeypatch):
    """Next to it or in a folder above; only then in the current folder."""
    for folder in (Path.cwd(), project):
        monkeypatch.chdir(folder)
        for name in ("row", "beside"):
            found = flagfiles.expand([f"--flagfile={project}/experiments/{name}.flags"])
            assert "--size=1" in found
    other = project.parent / "elsewhere"
    monkeypatch.chdir(other)
    (other / "experiments" / "base").mkdir(parents=True)
    (other / "experiments" / "base" / "small.flags").write_text("--size=7\n")
    (other / "experiments" / "mine.flags").write_text("--size=8\n")
    row = project / "experiments" / "row.flags"
    assert flagfiles.expand([f"--flagfile={row}"]) == ["--size=1", "--rate=2"]
    row.write_text("--flagfile=experiments/mine.flags")
    assert flagfiles.expand([f"--flagfile={row}"]) == ["--size=8"]


def test_those_of_the_package_are_found_from_anywhere(project):
    for path in sorted((ROOT / "experiments").rglob("*.flags")):
        name = path.relative_to(ROOT)
        here = flagfiles.expand([f"--flagfile={name}"])
        assert here and not any("flagfile" in line for line in here)
        assert here == flagfiles.expand([f"--flagfile={path}"])
    (Path.cwd() / "mine.flags").write_text("--flagfile=experiments/quickstart.flags\n--size=9")
    assert flagfiles.expand(["--flagfile=mine.flags"])[-2:] == ["--patience=0", "--size=9"]
    # The current folder goes before.
    (Path.cwd() / "experiments").mkdir()
    (Path.cwd() / "experiments" / "quickstart.flags").write_text("--size=9")
    assert flagfiles.expand(["--flagfile=experiments/quickstart.flags"]) == ["--size=9"]


def test_home_byte_order_mark_and_windows_lines(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project))
    path = project / "experiments" / "row.flags"
    path.write_bytes(b"\xef\xbb\xbf--a=1\r\n--flagfile=~/experiments/base/small.flags\r\n")
    expected = ["--a=1", "--size=1"]
    assert flagfiles.expand(["--flagfile=~/experiments/row.flags"]) == expected
    assert flagfiles.expand(["--flagfile", "~/experiments/row.flags"]) == expected


def test_mistakes_name_the_file(project):
    def told(text, match):
        (project / "bad.flags").write_bytes(text)
        with pytest.raises(UserError, match=match) as caught:
            flagfiles.expand([f"--flagfile={project}/bad.flags"])
        assert "\n" not in str(caught.value)

    where = f"named in {project}/bad.flags"
    told(
        b"--flagfile=none.flags",
        rf"^flagfile none.flags \({where}\): no such file; looked for next to it, in the folders "
        rf"above it, in the current folder, in {ROOT}$",
    )
    told(b"--flagfile=/none", rf"^flagfile /none \({where}\): no such file$")
    told(b"--flagfile=", "names no file")
    told(b"--flagfile=bad.flags", "bad.flags: names itself, by way of .*bad.flags$")
    told(b"\xff\xfe\x00\x81", "bad.flags: not UTF-8 text$")
    (project / "circle.flags").write_text("--flagfile=bad.flags")
    told(b"--flagfile=circle.flags", "bad.flags: names itself, by way of .*circle.flags$")
    told(b"--flagfile=experiments", "experiments: Is a directory$")


def test_a_short_name_is_one_of_the_packages_own(project):
    for name in ("iamondb", "small/handwriting/vrnn", "paper/base/gmm"):
        own = flagfiles.expand([f"--flagfile={ROOT}/experiments/{name}.flags"])
        assert own and flagfiles.expand([f"--flagfile=stcn_tf:{name}"]) == own
        (project / "mine.flags").write_text(f"--flagfile=stcn_tf:{name}\n--size=9")
        assert flagfiles.expand(["--flagfile", f"{project}/mine.flags"]) == [*own, "--size=9"]
    # Nothing in the current folder stands for it.
    for folder in ("experiments", "stcn_tf:"):
        (Path.cwd() / folder).mkdir()
        (Path.cwd() / folder / "iamondb.flags").write_text("--size=9")
    assert "--size=9" not in flagfiles.expand(["--flagfile=stcn_tf:iamondb"])


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("iamondbb", "stcn_tf:iamondb, stcn_tf:iamondb_cpu"),
        ("iamondb.flags", "stcn_tf:iamondb"),
        ("vrnn", "stcn_tf:small/audio/vrnn, stcn_tf:small/handwriting/vrnn"),
        ("small/audio/", "stcn_tf:small/audio/rnn, stcn_tf:small/audio/rnn_hierarchical"),
        ("", "stcn_tf:deepwriting_cpu, "),
        ("../setup", "stcn_tf:"),
    ],
)
def test_an_unknown_short_name_lists_those_near_it(name, near, project):
    told = f"flagfile stcn_tf:{name}{{}}: stcn_tf has none of this name; near it: {near}"
    for given, where in (
        (f"stcn_tf:{name}", ""),
        (f"{project}/bad.flags", f" (named in {project}/bad.flags)"),
    ):
        (project / "bad.flags").write_text(f"--flagfile=stcn_tf:{name}")
        with pytest.raises(UserError, match=f"^{re.escape(told.format(where))}") as caught:
            flagfiles.expand([f"--flagfile={given}"])
        assert str(caught.value).count("stcn_tf:") <= 10


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of what is installed of the project, with a model and a page in it."""
    project, out = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("built")
    for name in ("stcn_tf", "data_prep", "experiments"):
        shutil.copytree(
            ROOT / name,
            project / name,
            ignore=shutil.ignore_patterns("__pycache__", "figures", "pretrained", "page"),
        )
    for name in ("setup.py", "pyproject.toml", "requirements.txt", "README.md"):
        shutil.copy(ROOT / name, project)
    for name in (
        "pretrained/tiny/config.json",
        "pretrained/tiny/checkpoints/best/ckpt-7.index",
        "pretrained/tiny/checkpoints/best/checkpoint",
        "web/page/index.html",
        "web/page/parts/page.js",
    ):
        path = project / "stcn_tf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", f"--egg-base={out}", "build"]
        + [f"--build-base={project}/base", f"--build-lib={out}"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # All but the program itself.
    expected = {path.relative_to(project) for path in project.glob("data_prep/**/*.txt")}
    expected |= {path.relative_to(project) for path in project.glob("stcn_tf/*/*/**/*")}
    names = [*project.glob("experiments/**/*.flags"), project / "experiments/paper/tables.json"]
    expected |= {Path("stcn_tf", path.relative_to(project)) for path in names}
    expected = {p for p in expected if p.suffix != ".py" and not (project / p).is_dir()}
    found = [*out.glob("stcn_tf/**/*"), *out.glob("data_prep/**/*")]
    found = {p.relative_to(out) for p in found if p.is_file() and p.suffix != ".py"}
    assert found == expected and len(found) > 50
    return out


def test_a_wheel_has_the_command(built):
    scripts = (built / "stcn_tf.egg-info" / "entry_points.txt").read_text()
    assert "[console_scripts]\nstcn-tf = stcn_tf.__main__:main\n" in scripts


def test_a_wheel_finds_what_it_has(built, tmp_path):
    """From a folder that has nothing of the kind."""
    code = """
from stcn_tf import runs
from stcn_tf.reporting import published
from stcn_tf.support import flagfiles
print(runs.pretrained(), runs.located("pretrained/tiny"), published.tables().datasets["mnist"].name)
print(*flagfiles.expand(["--flagfile=stcn_tf:paper/mnist_stcn"]))
print(*flagfiles.expand(["--flagfile=experiments/paper/mnist_stcn.flags"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(built)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    first, short, long = done.stdout.splitlines()
    assert first == f"['pretrained/tiny'] {built}/stcn_tf/pretrained/tiny MNIST"
    assert short == long and "--data=records/mnist" in short
