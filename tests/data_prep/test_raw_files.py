"""Finding and reading raw files, in parallel and in order, and their faults."""

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

from data_prep.common import raw_files
from data_prep.common.raw_files import FileFault, ParsedFile, map_in_order
from stcn_tf.support.errors import UserError

ROOT = Path(raw_files.__file__).parents[1]


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


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


def test_linked_folders_are_followed_but_none_into_itself(tmp_path):
    put(tmp_path, "elsewhere/a.wav", "elsewhere/deep/b.wav", "source/c.wav")
    source = tmp_path / "source"
    for link, target in (
        ("train", "../elsewhere"),
        ("valid", "../elsewhere"),
        ("again", "."),
        ("up", ".."),
        ("gone", "../nowhere"),
    ):
        (source / link).symlink_to(target)
    (tmp_path / "elsewhere" / "deep" / "loop").symlink_to("../../elsewhere")
    assert raw_files.find_files(source, (".wav",)) == [
        "c.wav",
        "train/a.wav",
        "train/deep/b.wav",
        "up/elsewhere/a.wav",
        "up/elsewhere/deep/b.wav",
        "valid/a.wav",
        "valid/deep/b.wav",
    ]


def test_what_is_not_read_is_said_by_ending(tmp_path, capsys):
    put(tmp_path, "a.wav", "b.m4a", "in/c.M4A", "d", ".hidden.m4a", "e.txt")
    raw_files.find_files(tmp_path, (".wav", ".flac"))
    expected = "not read: 2 .m4a, 1 without an ending, 1 .txt (read are .wav, .flac)\n"
    assert capsys.readouterr().out == expected
    put(tmp_path, *(f"x.{letter}" for letter in "ghijklm"), "y.a\x1bb")
    raw_files.find_files(tmp_path, (".wav",))
    assert capsys.readouterr().out == (
        "not read: 2 .m4a, 1 without an ending, 1 .a\\x1bb, 1 .g, 1 .h, 1 .i, 5 with others "
        "(read are .wav)\n"
    )
    raw_files.find_files(tmp_path, tuple(f".{ending}" for ending in ("m4a", "txt", *"ghijklm")))
    put(tmp_path / "pure", "a.wav")
    capsys.readouterr()
    raw_files.find_files(tmp_path / "pure", (".wav",))
    assert capsys.readouterr().out == ""


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
    assert raw_files.checksum_of([]) == hashlib.sha256(b"").hexdigest()
    expected = hashlib.sha256("a/größe.json 5e1f\n 0d\n".encode()).hexdigest()
    assert raw_files.checksum_of([("a/größe.json", "5e1f"), ("", "0d")]) == expected


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
        "from data_prep.common import raw_files\n"
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
    paths, contents, checksums = {}, {}, []
    for number in range(70):  # three chunks
        paths[str(number)] = path = tmp_path / f"{number}"
        if number % 10:
            data = f'{{"n": {number}}}'.encode() * (number // 20)
            path.write_bytes(data)
            contents[str(number)] = [b"%d" % number] * (number // 20)
            checksums.append((f"no. {number}", hashlib.sha256(data).hexdigest()))
    parse = functools.partial(raw_files.parse_file, parse=functools.partial(re.findall, rb"\d+"))
    for workers in (1, 2):
        read = raw_files.read_files(parse, paths, workers, digest_name="no. {}".format)
        assert list(read.by_name.items()) == list(contents.items())
        assert list(read.faults) == [str(number) for number in range(0, 70, 10)]
        assert all("No such file" in fault for fault in read.faults.values())
        assert read.source_sha256 == raw_files.checksum_of(checksums)


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


def test_folders_that_link_to_each_other_are_read_once_more_each(tmp_path):
    names = "abcdefgh"
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.wav").touch()
        for other in names.replace(name, ""):
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    found = raw_files.find_files(tmp_path, (".wav",))
    assert len(found) == 8 + 8 * 7 and {"a/x.wav", "a/to_b/x.wav"} < set(found)
