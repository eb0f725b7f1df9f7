import os
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


def test_a_wheel_has_all_flagfiles_and_the_papers_numbers(tmp_path):
    """What is built is found by the commands that are built with it."""
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build", f"--build-base={tmp_path}/base"]
        + [f"--build-lib={tmp_path}/lib"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    theirs, ours = tmp_path / "lib" / "stcn_tf" / "experiments", ROOT / "experiments"
    names = {path.relative_to(ours) for path in ours.rglob("*.flags")}
    names.add(Path("paper/tables.json"))
    assert (
        len(names) > 1
        and {p.relative_to(theirs) for p in theirs.rglob("*") if p.is_file()} == names
    )
    done = subprocess.run(
        [sys.executable, "-m", "stcn_tf.train", "--flagfile=experiments/iamondb.flags"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}/lib"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr.startswith("error: flag --run_dir is required")  # --data is in a flagfile
