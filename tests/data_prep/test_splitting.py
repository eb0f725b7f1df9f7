"""How one's own data are split, and lists of what each split consists of."""

import hashlib
import math
import os
import re

import pytest

from data_prep.common import splitting
from data_prep.common.splitting import split_names
from stcn_tf.support.errors import UserError

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
        splitting.read_lists({name: [tmp_path / f"{name}.txt"] for name in lists}, key=str.lower)
    assert str(error.value).startswith(f"--split: {message.format(tmp_path)}")


def test_a_split_unites_lists_in_their_order(tmp_path):
    write_lists(tmp_path, one="b\na", two="B", three="c\nd")
    one, two, three = (tmp_path / f"{name}.txt" for name in ("one", "two", "three"))
    assert splitting.read_lists({"x": [three, one], "y": [two]}) == {
        "x": ["c", "d", "b", "a"],
        "y": ["B"],
    }
    with pytest.raises(UserError, match="^--split: 'B' is in .*/one.txt and in .*/two.txt$"):
        splitting.read_lists({"x": [one, two]}, key=str.lower)


def test_unknown_split_names_what_is_accepted():
    with pytest.raises(UserError) as error:
        split_names(["a"], "ramdom", 0.1, 0.0)
    assert str(error.value) == (
        "--split=ramdom: neither random nor folders, nor a folder of NAME.txt files"
    )


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
        pattern, what = re.compile(r"[a-z]\d"), "letter and digit"
        splitting.read_lists({"x": [path]}, pattern=pattern, what=what)
    separator = "" if message.startswith(" ") else ", "
    assert str(error.value).startswith(f"--split: {path}{separator}{message}")


def test_a_list_that_would_never_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(UserError, match="^--split: .*/list.txt is no regular file$"):
        splitting.read_lists({"x": [tmp_path / "list.txt"]})


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert splitting.read_lists({"x": [tmp_path / "list.txt"]}) == {"x": ["a", "b"]}


def test_lists_keep_their_order(tmp_path):
    (tmp_path / "list.txt").write_text("b 2\n#c\n\t a\r\n")
    assert splitting.read_lists({"x": [tmp_path / "list.txt"]}) == {"x": ["b 2", "a"]}


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("", ["", "", ""]),
        (r"_([a-z]+)_", ["theo", "", "lucas"]),
        (r"^(\d)|x", ["3", "", "7"]),
        ("(?:a)(b)?", ["", "b", ""]),
    ],
)
def test_groups_are_what_the_first_parentheses_match(pattern, groups):
    names = ["3_theo_0.wav", "ab/x", "7_lucas_12.wav"]
    assert [splitting.grouping(pattern)(name) for name in names] == groups


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(", "no regular expression (missing ), unterminated subpattern at position 1)"),
        ("abc", "has no parentheses around the group"),
        ("(?:abc)", "has no parentheses around the group"),
        ("(abc)", "finds nothing in any name, such as ab/x.wav"),
        ("a(c)?", "finds nothing in any name, such as ab/x.wav"),
    ],
)
def test_faults_of_a_group(pattern, message):
    with pytest.raises(UserError) as error:
        splitting.grouping(pattern, ["ab/x.wav", "y.wav"])
    assert str(error.value) == f"--group={pattern}: {message}"
