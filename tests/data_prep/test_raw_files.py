"""What preparations share: finding and reading files, in parallel and in order, faults, splits."""

import collections
import concurrent.futures
import functools
import hashlib
import io
import math
import multiprocessing
import operator
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from absl import flags

from data_prep import raw_files
from data_prep.raw_files import FileFault, ParsedFile, map_in_order, split_names
from stcn_tf.support.errors import UserError

ROOT = Path(raw_files.__file__).parents[1]


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


# ----------------------------------------------------------------------------------- flags


def test_flags_of_every_preparation(parse_flags, monkeypatch):
    parse_flags(lambda: raw_files.define_flags("from"), "--source=a", "--out=b")
    for num_cpus, expected in ((3, 3), (20, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=num_cpus: range(n), raising=False)
        assert raw_files.num_workers() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert raw_files.num_workers() == 1
    flags.FLAGS.workers = 5
    assert raw_files.num_workers() == 5


def test_places_that_hold_something_else_are_refused_early(tmp_path):
    raw_files.check_out(tmp_path / "new")
    put(tmp_path, "thesis/thesis.tex")
    with pytest.raises(UserError, match="thesis: holds 'thesis.tex', which is no part of a datase"):
        raw_files.check_out(tmp_path / "thesis")


# --------------------------------------------------------------------------------- finding


def test_files_are_found_by_their_endings_in_whatever_case(tmp_path):
    put(tmp_path, "b.json", "a/z.InkML", "a/b/c.JSON", "a.json/x.json", "a-1.json", "größe.json")
    put(tmp_path, "名\u3000前.json")  # its space is one that Python does not call printable
    put(tmp_path, "b.txt", "json", "x.json.bak", "a/.hidden.json", ".git/x.json", "a/.b/c/x.json")
    assert raw_files.find_files(tmp_path, (".json", ".inkml")) == [
        "a-1.json",
        "a.json/x.json",
        "a/b/c.JSON",
        "a/z.InkML",
        "b.json",
        "größe.json",
        "名\u3000前.json",
    ]
    assert raw_files.find_files(tmp_path, [".bak"]) == ["x.json.bak"]
    assert raw_files.find_files(tmp_path / "a.json", (".inkml",)) == []


@pytest.mark.parametrize("name", [b"caf\xe9.json", b"two\nlines.json", b"\x1b[31mred.json"])
def test_names_that_are_not_utf8_or_have_control_characters_are_refused(tmp_path, name):
    (tmp_path / "a").mkdir()
    open(os.fsencode(tmp_path / "a") + b"/" + name, "wb").close()
    assert raw_files.find_files(tmp_path, (".inkml",)) == []
    with pytest.raises(UserError) as error:
        raw_files.find_files(tmp_path, (".json",))
    assert str(error.value) == (
        f"--source: {tmp_path} holds {b'a/' + name!r}, whose name is not UTF-8 without control "
        "characters; rename it"
    )


def test_folders_that_cannot_be_searched(tmp_path, monkeypatch):
    put(tmp_path, "a/x.json", "b/x.json")
    with pytest.raises(UserError, match=f"^--source: {tmp_path}/none does not exist$"):
        raw_files.find_files(tmp_path / "none", (".json",))
    with pytest.raises(UserError, match=f"{tmp_path}/a/x.json is a file; accepted: a folder$"):
        raw_files.find_files(tmp_path / "a" / "x.json", (".json",))

    def scandir(path):
        if Path(path).name == "b":  # to root, every folder is readable
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    original = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=f"{tmp_path}/b cannot be read: Permission denied$"):
        raw_files.find_files(tmp_path, (".json",))


# --------------------------------------------------------------------------------- reading


def parse_number(data):
    if not data.isdigit():
        raise FileFault("is no number")
    return int(data)


def test_files_are_parsed_or_their_faults_told(tmp_path):
    path = tmp_path / "number"
    path.write_bytes(b"0123")
    sha256 = hashlib.sha256(b"0123").hexdigest()
    assert raw_files.parse_file(path, parse_number) == ParsedFile(123, sha256, "")
    assert raw_files.parse_file(str(path), len) == ParsedFile(4, sha256, "")
    assert raw_files.parse_file(path, parse_number, max_bytes=4).content == 123
    too_large = ParsedFile(None, "", "has 4 bytes, at most 3 are accepted")
    assert raw_files.parse_file(path, parse_number, max_bytes=3) == too_large
    assert list(raw_files.parse_files([str(path)], parse_number, 1, max_bytes=3)) == [too_large]

    path.write_bytes(b"1x")
    sha256 = hashlib.sha256(b"1x").hexdigest()
    assert raw_files.parse_file(path, parse_number) == ParsedFile(None, sha256, "is no number")
    os.mkfifo(tmp_path / "fifo")  # who opened it would wait for ever
    for bad, fault in (
        (tmp_path / "none", "cannot be read: No such file or directory"),
        ("x\0y", "cannot be read: embedded null byte"),
        (tmp_path, "is no regular file"),
        (tmp_path / "fifo", "is no regular file"),
        ("/dev/zero", "is no regular file"),
    ):
        assert raw_files.parse_file(bad, parse_number) == ParsedFile(None, "", fault)


def test_mistakes_of_a_parser_are_not_faults_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(ValueError, match="invalid literal"):
        raw_files.parse_file(tmp_path / "x", int)


def test_digest_is_over_names_and_checksums_in_order():
    digest = raw_files.Digest()
    assert digest.hexdigest() == hashlib.sha256(b"").hexdigest()
    digest.add("a/größe.json", "5e1f")
    digest.add("", "0d")
    expected = hashlib.sha256("a/größe.json 5e1f\n 0d\n".encode()).hexdigest()
    assert digest.hexdigest() == expected


# Functions of the standard library: other processes import them fast.


@pytest.mark.parametrize(("workers", "chunk"), [(1, 1), (2, 1), (3, 4), (100, 3)])
def test_map_keeps_the_order(workers, chunk):
    # Large factorials take a processor longer than all the small ones.
    items = [30_000, 0, 20_000, 2, 3, 5, 10_000]
    results = list(map_in_order(math.factorial, items, workers, chunk))
    assert results == [math.factorial(item) for item in items]


def test_map_of_nothing_starts_no_process():
    assert list(map_in_order(operator.neg, [], workers=3)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives_in_its_turn(workers):
    results = map_in_order(math.sqrt, [4, 9, -1, 16], workers)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ValueError):
        next(results)
    assert not multiprocessing.active_children()


def test_a_consumer_that_stops_stops_the_processes():
    results = map_in_order(operator.neg, range(1000), workers=2)
    assert next(results) == 0
    assert multiprocessing.active_children()
    results.close()
    assert not multiprocessing.active_children()


class LazyExecutor:
    """Stands for a pool of processes: computes when asked for a result, and counts."""

    def __init__(self, max_workers, mp_context):
        assert mp_context.get_start_method() == "spawn"
        self.max_workers = max_workers
        self.under_way = self.most_under_way = 0
        self.handlers = []  # of Ctrl-C at each submission, where a process may be started
        self.is_shut_down = False

    def submit(self, function, *arguments):
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.handlers.append(signal.getsignal(signal.SIGINT))
        future = concurrent.futures.Future()

        def result():
            self.under_way -= 1
            return function(*arguments)

        future.result = result
        return future

    def shutdown(self, cancel_futures):
        self.is_shut_down = cancel_futures


@pytest.fixture
def executors(monkeypatch):
    """The stand-ins that were made."""
    made = []

    def make(*arguments, **options):
        made.append(LazyExecutor(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", make)
    return made


@pytest.mark.parametrize(("workers", "chunk"), [(2, 1), (3, 1), (5, 7), (8, 300)])
def test_what_is_under_way_does_not_grow_with_the_items(executors, workers, chunk):
    results = map_in_order(operator.neg, range(1001), workers, chunk)
    assert list(results) == list(range(0, -1001, -1))
    (executor,) = executors
    num_chunks = math.ceil(1001 / chunk)
    assert executor.max_workers == min(workers, num_chunks)
    assert executor.most_under_way == min(2 * workers, num_chunks)
    assert executor.under_way == 0 and executor.is_shut_down


def test_a_slow_consumer_is_waited_for(executors):
    calls = []
    results = map_in_order(calls.append, range(100), workers=2, chunk=3)
    for number in range(1, 11):
        next(results)
        # Chunk by chunk, when its first result is asked for, not ahead of it.
        assert len(calls) == 3 * math.ceil(number / 3)
        assert executors[0].under_way <= 4
    results.close()
    assert executors[0].is_shut_down


def test_ctrl_c_is_ignored_only_while_processes_start(executors):
    handler = signal.getsignal(signal.SIGINT)
    for _ in map_in_order(operator.neg, range(100), workers=2):
        assert signal.getsignal(signal.SIGINT) is handler
    # The first as many as are under way at once start all processes.
    assert executors[0].handlers == 4 * [signal.SIG_IGN] + 96 * [handler]


@pytest.mark.parametrize("processes", ["busy", "idle"])
def test_ctrl_c_is_seen_by_the_parent_alone(processes):
    script = (
        "import multiprocessing, time\n"
        "from data_prep import raw_files\n"
        "try:\n"
        "    for _ in raw_files.map_in_order(time.sleep, [0.05] * 10_000, workers=2):\n"
        "        print('under way', flush=True)\n"
        f"        time.sleep({0 if processes == 'busy' else 60})\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', multiprocessing.active_children(), flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal's foreground job
    )
    assert process.stdout.readline() == "under way\n"
    time.sleep(0.3)  # to be idle, they must be done with the next three
    os.killpg(process.pid, signal.SIGINT)  # to all processes, as Ctrl-C
    out, err = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "interrupted []"
    assert (process.returncode, err) == (0, "")


def test_files_are_parsed_alike_by_any_number_of_processes(tmp_path):
    paths = []
    for number in range(70):  # three chunks
        paths.append(str(tmp_path / f"{number}"))
        if number % 10:
            Path(paths[-1]).write_bytes(f'{{"n": {number}}}'.encode() * (number // 20))
    parse = functools.partial(re.findall, rb"\d+")
    one, two = (list(raw_files.parse_files(paths, parse, workers)) for workers in (1, 2))
    assert one == two
    for number, result in enumerate(one):
        assert bool(result.fault) == (number % 10 == 0)
        assert result.content == ([b"%d" % number] * (number // 20) if number % 10 else None)


# -------------------------------------------------------------------------------- progress


def test_plain_progress_is_a_line_now_and_then(monkeypatch, capsys):
    now = 100.0
    monkeypatch.setattr(raw_files.time, "monotonic", lambda: now)
    results = raw_files.with_progress(iter("abcde"), 5, "reading", "letters")
    for letter in "abcde":
        assert next(results) == letter
        now += 6.0  # until the next is asked for
    assert list(results) == []
    assert capsys.readouterr() == (
        "",
        "reading: 2 of 5 letters\nreading: 4 of 5 letters\nreading: 5 of 5 letters\n",
    )
    assert list(raw_files.with_progress([], 0)) == []
    assert list(raw_files.with_progress([7, 8], 2)) == [7, 8]
    assert capsys.readouterr().err == "parsing: 2 of 2 files\n"


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(raw_files.with_progress([7, 8], 2, "reading", "letters")) == [7, 8]
    shown = sys.stderr.getvalue()
    assert "\r" in shown and "reading: 100%" in shown and "2/2" in shown and " letters/s" in shown


# ---------------------------------------------------------------------------------- faults


def test_faults_are_told_in_one_line():
    with pytest.raises(UserError) as error:
        raw_files.refuse({"a.json": "is bad"}, Path("raw"))
    assert str(error.value) == (
        "1 bad entry in raw: a.json: is bad (mend, or pass --skip_bad to leave out)"
    )
    with pytest.raises(UserError) as error:
        raw_files.refuse({f"{number}.json": f"is {number}" for number in range(7)}, Path("raw"))
    assert str(error.value) == (
        "7 bad entries in raw: 0.json: is 0; 1.json: is 1; 2.json: is 2; 3.json: is 3; "
        "4.json: is 4; and 2 more (mend, or pass --skip_bad to leave out)"
    )


@pytest.mark.parametrize(
    ("skipped", "expected"),
    [
        ({}, "skipped 0 entries\n"),
        ({"a": "is bad"}, "skipped a: is bad\nskipped 1 entry\n"),
        ({"a": "is bad", "b": "too"}, "skipped a: is bad\nskipped b: too\nskipped 2 entries\n"),
    ],
)
def test_what_was_skipped_is_counted(skipped, expected, capsys):
    raw_files.print_skipped(skipped)
    assert capsys.readouterr().out == expected


def test_sizes_are_compared_where_they_are_known(capsys):
    Split = collections.namedtuple("Split", ["num_sequences", "num_steps"])
    splits = {"train": Split(3, 70), "valid": Split(2, 50), "test": Split(1, 9)}
    raw_files.print_sizes_check(splits, {})
    assert capsys.readouterr().out == ""
    raw_files.print_sizes_check(splits, {"train": (3, 70), "valid": (2, 51)})
    assert capsys.readouterr().out == (
        "check: train has the 3 sequences and 70 steps of the complete data set\n"
        "check: valid does not have the 2 sequences and 51 steps of the complete data set\n"
    )


# ---------------------------------------------------------------------------------- splits

NAMES = [f"writer{number % 7}/{number:03d}.json" for number in range(50)]


@pytest.mark.parametrize(
    ("count", "valid_share", "test_share", "sizes"),
    [
        (50, 0.1, 0.0, {"train": 45, "valid": 5}),
        (30, 0.1, 0.1, {"train": 24, "valid": 3, "test": 3}),
        (50, 0.05, 0.13, {"train": 40, "valid": 3, "test": 7}),  # 2.5 and 6.5, rounded up
        (50, 0.14, 0.14, {"train": 36, "valid": 7, "test": 7}),  # 50 * 0.14 > 7 in binary
        (3, 0.01, 0.01, {"train": 1, "valid": 1, "test": 1}),
        (2, 0.5, 0.0, {"train": 1, "valid": 1}),
        (50, 0.97, 0.0, {"train": 1, "valid": 49}),
    ],
)
def test_random_splits_have_exact_sizes_and_share_nothing(count, valid_share, test_share, sizes):
    parts = split_names(NAMES[:count], "random", valid_share, test_share)
    assert list(parts) == list(sizes)
    assert {name: len(members) for name, members in parts.items()} == sizes
    assert sorted(sum(parts.values(), [])) == sorted(NAMES[:count])
    assert all(members == sorted(members) for members in parts.values())


def test_random_splits_follow_the_checksums_of_names():
    by_checksum = sorted(NAMES, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    parts = split_names(NAMES, "random", 0.1, 0.06)
    assert parts["test"] == sorted(by_checksum[:3])
    assert parts["valid"] == sorted(by_checksum[3:8])
    assert split_names(NAMES[::-1], "random", 0.1, 0.06) == parts
    # Known values: nobody's split may ever change.
    assert split_names(list("abcdefghij"), "random", 0.2, 0.1) == {
        "train": ["a", "b", "c", "e", "g", "h", "i"],
        "valid": ["d", "f"],
        "test": ["j"],
    }


def test_random_splits_hardly_change_with_the_names():
    before = split_names(NAMES, "random", 0.1, 0.0)
    after = split_names([*NAMES, "new.json"], "random", 0.1, 0.0)
    assert len(after["valid"]) == 6 and set(before["valid"]) - set(after["valid"]) <= {"new.json"}


@pytest.mark.parametrize(
    ("valid_share", "test_share"),
    [(0.0, 0.1), (-0.1, 0.0), (0.1, -0.1), (0.5, 0.5), (1.0, 0.0), (math.nan, 0.0)],
)
def test_shares_out_of_range_are_refused(valid_share, test_share):
    with pytest.raises(UserError) as error:
        split_names(NAMES, "random", valid_share, test_share)
    assert str(error.value) == (
        f"--valid_share={valid_share:g} --test_share={test_share:g}: accepted: more than 0 and 0 "
        "or more, with a sum of less than 1"
    )


@pytest.mark.parametrize(
    ("count", "test_share", "into"),
    [(0, 0.0, "train and valid"), (1, 0.0, "train and valid"), (2, 0.1, "train, valid and test")],
)
def test_too_few_to_split_are_refused(count, test_share, into):
    with pytest.raises(UserError) as error:
        split_names(NAMES[:count], "random", 0.1, test_share)
    assert str(error.value) == f"{count} sequences are too few for {into}"


def test_split_by_topmost_folders():
    names = ["valid/b", "train/z/1", "test2/x", "train/a", "valid/a", "held/x", "train/z/0"]
    parts = split_names(names, "folders", 0.1, 0.0)
    assert list(parts.items()) == [
        ("train", ["train/a", "train/z/0", "train/z/1"]),
        ("valid", ["valid/a", "valid/b"]),
        ("held", ["held/x"]),
        ("test2", ["test2/x"]),
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a", "b"], "--split=folders: b lies in no folder"),
        (["train/a", "test/b"], "--split=folders: there is no folder valid, only test, train"),
        (["valid/a"], "--split=folders: there is no folder train, only valid"),
        ([], "--split=folders: there is no folder train, only nothing"),
        (
            ["train/a", "valid/a", "train-clean/a"],
            "--split: no split can have the name 'train-clean'; accepted: letters (a to z), digits "
            "and underscores",
        ),
    ],
)
def test_faults_of_split_folders(names, message):
    with pytest.raises(UserError) as error:
        split_names(names, "folders", 0.1, 0.0)
    assert str(error.value) == message


def write_lists(folder, **lists):
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text)
    return str(folder)


def test_split_by_lists(tmp_path):
    lists = write_lists(
        tmp_path, train="# mine\n b/2 \n\nb/1\n", test="größe\n", valid="a b\n", readme="c\n"
    )
    (tmp_path / "notes.md").write_text("not a list")
    names = ["b/1", "b/2", "a b", "größe", "c", "in no list"]
    assert split_names(names, lists, 0.1, 0.0) == {
        "train": ["b/1", "b/2"],
        "valid": ["a b"],
        "test": ["größe"],
        "readme": ["c"],
    }


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": "a"}, "the folder has no valid.txt"),
        ({"valid": "a"}, "the folder has no train.txt"),
        ({"train": "a", "valid": "b\nd"}, "'d', listed in valid.txt, does not exist"),
    ],
)
def test_faults_of_split_lists(tmp_path, lists, message):
    folder = write_lists(tmp_path, **lists)
    with pytest.raises(UserError) as error:
        split_names(["a", "b", "c"], folder, 0.1, 0.0)
    assert str(error.value) == f"--split={folder}: {message}"


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": "a\nB", "valid": "c\nb"}, "'b' is in {0}/train.txt and in {0}/valid.txt"),
        ({"train": "a\nA"}, "{0}/train.txt, line 2: 'A' is listed twice"),
        ({"größe": "a"}, "no split can have the name 'größe'; accepted: letters (a to z), digits "),
        ({"x" * 101 + "-": "a"}, "no split can have the name '" + "x" * 100 + "'; accepted: "),
    ],
)
def test_names_and_splits_that_exclude_each_other(tmp_path, lists, message):
    write_lists(tmp_path, **lists)
    with pytest.raises(UserError) as error:
        raw_files.read_lists({name: [tmp_path / f"{name}.txt"] for name in lists}, key=str.lower)
    assert str(error.value).startswith(f"--split: {message.format(tmp_path)}")


def test_a_split_unites_lists_in_their_order(tmp_path):
    write_lists(tmp_path, one="b\na", two="B", three="c\nd")
    one, two, three = (tmp_path / f"{name}.txt" for name in ("one", "two", "three"))
    assert raw_files.read_lists({"x": [three, one], "y": [two]}) == {
        "x": ["c", "d", "b", "a"],
        "y": ["B"],
    }
    with pytest.raises(UserError, match="^--split: 'B' is in .*/one.txt and in .*/two.txt$"):
        raw_files.read_lists({"x": [one, two]}, key=str.lower)


def test_unknown_split_names_what_is_accepted():
    with pytest.raises(UserError) as error:
        split_names(["a"], "ramdom", 0.1, 0.0)
    assert str(error.value) == (
        "--split=ramdom: neither random nor folders, nor a folder of NAME.txt files"
    )


def test_arguments_of_a_split_have_no_paths():
    assert raw_files.split_arguments("random", 0.1, 0.0) == (
        "--split=random --valid_share=0.1 --test_share=0"
    )
    assert raw_files.split_arguments("folders", 0.1, 0.0) == "--split=folders"
    assert raw_files.split_arguments("/home/me/lists", 0.1, 0.0) == "--split=DIR"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a1\n\n# x\nb\n", "line 4: 'b' is no letter and digit"),
        (b"x" * 101, "line 1: '" + "x" * 100 + "' is no letter and digit"),
        (b"a1\r\n b2 \r\na1", "line 3: 'a1' is listed twice"),
        (b"\n  \n#a1\n", " lists nothing"),
        (b"a\xff", " cannot be read: 'utf-8' codec can't decode byte 0xff"),
        (None, " cannot be read: No such file"),
    ],
)
def test_faults_of_a_list(tmp_path, content, message):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        raw_files.read_list(path, re.compile(r"[a-z]\d"), "letter and digit")
    separator = "" if message.startswith(" ") else ", "
    assert str(error.value).startswith(f"--split: {path}{separator}{message}")


def test_a_list_that_would_never_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(UserError, match="^--split: .*/list.txt is no regular file$"):
        raw_files.read_list(tmp_path / "list.txt")


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert raw_files.read_list(tmp_path / "list.txt") == ["a", "b"]


def test_lists_keep_their_order(tmp_path):
    (tmp_path / "list.txt").write_text("b 2\n#c\n\t a\r\n")
    assert raw_files.read_list(tmp_path / "list.txt") == ["b 2", "a"]
