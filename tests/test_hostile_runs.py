"""Damaged and malicious run directories, records and files to continue: right, or one line.

Nothing is executed, memory stays bounded, and nothing is removed that is not the command's own.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import struct
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from stcn_tf.config import Config
from stcn_tf.data import records
from stcn_tf.data.card import DatasetCard, read_card
from stcn_tf.data.sequences import read_sequences, write_sequences
from stcn_tf.data.sounds import read_sound
from stcn_tf.inference import saved_model
from stcn_tf.inference.served import ServedModel
from stcn_tf.media.page import medium_of
from stcn_tf.models.registry import build_model, make_settings
from stcn_tf.runs import RunDirectory
from stcn_tf.support import devices
from stcn_tf.support.errors import UserError, one_line
from stcn_tf.support.strict_json import parse
from tests.data_prep.test_hostile import (
    HOSTILE_VALUES,
    JSON_TOKENS,
    assert_one_line,
    damaged,
    fuzz,
)


@contextlib.contextmanager
def resident(max_bytes):
    """What happens inside takes no more memory, TensorFlow's and HDF5's included."""

    def sizes():
        lines = Path("/proc/self/status").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        return [1024 * int(facts[name].split()[0]) for name in ("VmHWM", "VmRSS")]

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far is that of now
    except OSError:
        yield  # what is held beside the memory still is
        pytest.skip("the system does not tell how much memory was taken")
    start = sizes()[1]
    yield
    assert sizes()[0] - start < max_bytes


def refused(function, *args):
    """What came out, or None where one line says why not."""
    try:
        return function(*args)
    except UserError as error:
        assert str(error)
        assert one_line(str(error)).isprintable()
        assert len(one_line(str(error))) < 2100
        return None


# ----------------------------------------------------------------------------- config.json


def changed(text, **changes):
    """A config.json with other values: part__name=value."""
    raw = json.loads(text)
    for name, value in changes.items():
        part, name = name.split("__")
        raw[part][name] = value
    return json.dumps(raw)


CONFIGS = {
    "a latent of many units": ({"model__latent_sizes": [10**9]}, "weights, which take"),
    "many filters": ({"model__num_filters": 2**31 - 1}, "weights, which take"),
    "many of everything": (
        dict.fromkeys(
            ("model__num_filters", "model__num_components", "model__output_filters"), 2**31 - 1
        ),
        "weights, which take",
    ),
    "more than that": ({"model__num_filters": 10**12}, "accepted: whole numbers up to 2147483647"),
    "more than numbers are": ({"model__num_filters": 10**4000}, "accepted: whole numbers up to"),
    "many layers": ({"model__output_layers": 10**9}, "accepted: 0 to 1000"),
    "many blocks": ({"model__blocks_per_layer": 64}, "accepted: 1 to 20"),
    "many latents": ({"model__latent_sizes": [1] * 10**5}, "accepted: 1000 numbers at most"),
    "far dilations": ({"model__dilations": [2**40]}, "whole numbers, each 1 to 1048576"),
    "a rate that is none": ({"training__learning_rate": 10**400}, "accepted: finite numbers"),
    "true": ({"model__num_filters": True}, "True of type bool; accepted: int"),
    "a text": ({"model__num_filters": "\x1b[2J\n6"}, "of type str; accepted: int"),
    "another program's name": ({"model__model": "os:system"}, "model: 'os:system'; accepted: "),
    "no name at all": ({"model__model": ["stcn"]}, r"model: \['stcn'\]; accepted: "),
}


@pytest.fixture
def run_dir(tmp_path, tiny_run):
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_that_are_too_much(name, run_dir):
    changes, told = CONFIGS[name]
    file = run_dir / "config.json"
    file.write_text(changed(file.read_text(), **changes))
    with resident(2**28), pytest.raises(UserError, match=told) as error:
        RunDirectory.open(run_dir).load()
    assert len(one_line(str(error.value))) < 2100


def test_a_state_that_is_too_much(tiny_config_with, tiny_records, monkeypatch):
    config = tiny_config_with(model={"dilations": (2**20,)})
    monkeypatch.setattr(devices, "memory_bytes", lambda: 2**26)
    with resident(2**27), pytest.raises(UserError, match="numbers of a state, which take"):
        build_model(config.model, read_card(tiny_records))


@pytest.mark.parametrize("model", ["swavenet", "vrnn", "wavenet", "srnn"])
def test_other_models_that_are_too_much(model, tiny_records):
    size = "num_filters" if "num_filters" in make_settings(model).__dict__ else "recurrent_units"
    settings = make_settings(model, **{size: 10**6})
    with resident(2**28), pytest.raises(UserError, match="weights, which take"):
        build_model(settings, read_card(tiny_records))


TEXTS = {
    "nan": ('{"a": NaN}', "NaN is no number"),
    "infinity": ("[-Infinity]", "-Infinity is no number"),
    "too large": ("[1e999]", "1e999 is no finite number"),
    "long": ("[" + "9" * 5000 + "]", "not JSON"),
    "twice": ('{"a": 1, "a": 2}', "'a' is there twice"),
    "deep": ("[" * 10**6, "nested too deeply"),
    "not that deep": ("[" * 200 + "]" * 200, "nested too deeply"),
    "deep objects": ('{"a":' * 10**5 + "1" + "}" * 10**5, "nested too deeply"),
    "nothing": ("", "not JSON"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_json_that_is_none(name):
    text, told = TEXTS[name]
    for function in (parse, Config.from_json, DatasetCard.from_json):
        with resident(2**27), pytest.raises(UserError, match=told) as error:
            function(text, "FILE")
        assert_one_line(error.value)
        assert str(error.value).startswith("FILE: ")


@pytest.mark.parametrize("name", ["config.json", "dataset.json"])
def test_files_that_are_no_text(name, run_dir):
    with open(run_dir / name, "wb") as file:
        file.truncate(2**40)  # takes no room
    with resident(2**28), pytest.raises(UserError, match=f"{name}: .*too large"):
        RunDirectory.open(run_dir)
    (run_dir / name).write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match=f"{name}: .*not UTF-8 text"):
        RunDirectory.open(run_dir)
    (run_dir / name).unlink()
    os.mkfifo(run_dir / name)  # who opened it would wait for ever
    with pytest.raises(UserError):
        RunDirectory.open(run_dir)


@st.composite
def altered(draw, content):
    """A JSON value in which some values are others."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        place = content
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(list(keys)))
            if not isinstance(place[key], dict | list) or draw(st.booleans()):
                place[key] = draw(HOSTILE_VALUES)
                break
            place = place[key]
    return json.dumps(content)


@fuzz(max_examples=200)
@given(data=st.data())
def test_any_values_in_a_configuration(data, tiny_config):
    text = data.draw(altered(json.loads(tiny_config.to_json())))
    config = refused(Config.from_json, text, "FILE")
    if config is not None:
        assert Config.from_json(config.to_json(), "FILE") == config


@fuzz(max_examples=200)
@given(data=st.data())
def test_any_values_in_a_card(data, tiny_records, tiny_audio, tiny_images):
    folder = data.draw(st.sampled_from([tiny_records, tiny_audio, tiny_images]))
    card = refused(
        DatasetCard.from_json, data.draw(altered(json.loads(read_card(folder).to_json())))
    )
    if card is not None:
        assert DatasetCard.from_json(card.to_json()) == card
        assert 1 <= medium_of(card).length <= 2**29
        assert card.name.isprintable()
        for name, split in card.splits.items():
            assert Path(f"{name}{card.source_sha256}").name
            for shard in split.shards:
                assert Path("folder", shard.file).parent == Path("folder")


@fuzz(max_examples=200)
@given(data=st.data())
def test_damaged_text_of_a_run(data, tiny_config, tiny_records):
    text, function = data.draw(
        st.sampled_from(
            [
                (tiny_config.to_json(), Config.from_json),
                (read_card(tiny_records).to_json(), DatasetCard.from_json),
            ]
        )
    )
    text = data.draw(damaged(text.encode(), JSON_TOKENS)).decode("utf-8", "replace")
    refused(function, text, "FILE")


CARDS = {
    "a shard elsewhere": (("splits", "train", "shards", 0, "file"), "../../etc/passwd", "shard"),
    "an absolute shard": (("splits", "train", "shards", 0, "file"), "/etc/passwd", "shard"),
    "many sequences": (("splits", "train", "num_sequences"), 10**12, "the shards hold 23"),
    "many steps": (("splits", "train", "num_steps"), 10**30, "num_steps: 1.*accepted: 1 to"),
    "a negative size": (("splits", "train", "shards", 0, "num_bytes"), -1, "num_bytes: -1"),
    "a mean beyond floats": (("normalization", "mean", 0), 10**400, "too large"),
    "no rate": (("modality",), {"kind": "audio", "sample_rate_hz": 10**12}, "up to 1000000"),
    "no image": (("modality",), {"kind": "image", "height": 10**9, "width": 10**9}, "pixels"),
    "a name for the terminal": (("name",), "\x1b]0;owned\x07", "cannot be printed"),
    "a feature for the terminal": (("features", 0, "name"), "\x1b[2J", "cannot be printed"),
    "a checksum that is a path": (("source_sha256",), "../../x", "hexadecimal digits"),
}


@pytest.mark.parametrize("name", CARDS)
def test_cards_that_are_none(name, tiny_records):
    place, value, told = CARDS[name]
    content = json.loads(read_card(tiny_records).to_json())
    if name in ("no rate", "no image"):
        value = {"sample_rate_hz": 0, "height": 0, "width": 0} | value
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(UserError, match=told) as error:
        DatasetCard.from_json(json.dumps(content), "FILE")
    assert one_line(str(error.value)).isprintable()


# --------------------------------------------------------------------------------- records


def framed(record, num_bytes=None):
    """A record as a file has it; with another length, whose checksum is right."""
    with tempfile.NamedTemporaryFile() as file:
        with tf.io.TFRecordWriter(file.name) as writer:
            writer.write(record)
        whole = file.read()
    if num_bytes is None:
        return whole
    length = struct.pack("<Q", num_bytes)
    return length + struct.pack("<I", masked_checksum(length)) + whole[12:]


def masked_checksum(data):
    """CRC32C, rotated and shifted as TFRecord files have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_the_checksum_is_that_of_the_files():
    whole = framed(b"record")
    assert struct.unpack("<I", whole[8:12])[0] == masked_checksum(whole[:8])


@pytest.mark.parametrize("num_bytes", [2**20, 10**12, 2**63, 2**64 - 20, 0])
def test_a_record_that_claims_to_be_long(num_bytes, tmp_path, tiny_records):
    folder = Path(shutil.copytree(tiny_records, tmp_path / "records"))
    card = read_card(folder)
    shard = card.splits["valid"].shards[0]
    first = next(tf.data.TFRecordDataset(str(folder / shard.file)).as_numpy_iterator())
    data = framed(first, num_bytes) + (folder / shard.file).read_bytes()[len(framed(first)) :]
    (folder / shard.file).write_bytes(data)
    shard = dataclasses.replace(shard, sha256=hashlib.sha256(data).hexdigest())
    splits = {"valid": dataclasses.replace(card.splits["valid"], shards=(shard,))}
    (folder / "dataset.json").write_text(dataclasses.replace(card, splits=splits).to_json())
    with resident(2**27), pytest.raises(UserError, match="its bytes are not the 7 records that"):
        records.verify(folder, "valid")


# 2**30 steps of 3 values of 4 bytes are a multiple of 2**32 bytes.
@pytest.mark.parametrize("length", [5 + 2**30, 5 + 2**32, 5 + 2**62, -5, 0, 4, 6])
def test_a_sequence_that_claims_to_be_long(length):
    example = tf.train.Example()
    example.features.feature["id"].bytes_list.value.append(b"a")
    example.features.feature["length"].int64_list.value.append(length)
    example.features.feature["x"].bytes_list.value.append(bytes(5 * 3 * 4))
    with pytest.raises(tf.errors.InvalidArgumentError, match="do not hold length x 3"):
        records.parse_records(tf.constant([example.SerializeToString()]), 3)


# ------------------------------------------------------------------------------------ HDF5


def bomb(file, path):
    file.create_dataset("strokes", (10**6, 10**6, 3), "f4", chunks=(1, 1000, 3), compression="gzip")


def bomb_of_one_chunk(file, path):
    chunks = (1000, 100_000, 3)
    file.create_dataset("strokes", (2, 3, 3), "f4", maxshape=(None, None, 3), chunks=chunks)


def bomb_of_lengths(file, path):
    file["strokes"] = np.ones((2, 3, 3))
    file.create_dataset("lengths", (10**12,), "i8", chunks=(1000,))


def bomb_of_an_attribute(file, path):
    file["strokes"] = np.ones((2, 3, 3))
    file.attrs["features"] = np.array(["dx"] * 1000, h5py.string_dtype())


def objects(file, path):
    file.create_dataset("strokes", (2, 3, 3), h5py.ref_dtype)


def texts(file, path):
    file.create_dataset("strokes", (2, 3, 3), h5py.string_dtype())


def arrays(file, path):
    file.create_dataset("strokes", (2, 3, 3), h5py.vlen_dtype(np.dtype("f4")))


def opaque(file, path):
    file.create_dataset("strokes", data=np.zeros((2, 3, 3), "V8"))


def compound(file, path):
    file.create_dataset("strokes", (2, 3, 3), np.dtype([("a", "f4"), ("b", "i4")]))


def nothing(file, path):
    file["strokes"] = h5py.Empty("f4")


def group(file, path):
    file.create_group("strokes")


def elsewhere(path):
    with h5py.File(path.with_name("elsewhere.h5"), "w") as other:
        other["strokes"] = np.zeros((2, 3, 3), np.float32)
    return "elsewhere.h5"


def link_to_another_file(file, path):
    file["strokes"] = h5py.ExternalLink(elsewhere(path), "/strokes")


def link_to_nothing(file, path):
    file["strokes"] = h5py.SoftLink("/nowhere")


def values_of_another_file(file, path):
    layout = h5py.VirtualLayout((2, 3, 3), "f4")
    layout[:] = h5py.VirtualSource(elsewhere(path), "strokes", (2, 3, 3))
    file.create_virtual_dataset("strokes", layout)


def bytes_of_another_file(file, path):
    path.with_name("secret").write_bytes(bytes(72))
    external = [(str(path.with_name("secret")), 0, 72)]
    file.create_dataset("strokes", (2, 3, 3), "f4", external=external)


FILES = [
    *(bomb, bomb_of_one_chunk, bomb_of_lengths, bomb_of_an_attribute, objects, texts, arrays),
    *(opaque, compound, nothing, group, link_to_another_file, link_to_nothing),
    *(values_of_another_file, bytes_of_another_file),
]


@pytest.mark.parametrize("write", FILES, ids=lambda write: write.__name__)
def test_sequences_that_are_none(write, tmp_path, tiny_records):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        write(file, path)
    with resident(2**27), pytest.raises(UserError, match=f"{path}: ") as error:
        read_sequences(path, read_card(tiny_records), "strokes")
    assert_one_line(error.value)


@fuzz(max_examples=150)
@given(data=st.data())
def test_damaged_sequences(data, tiny_records):
    card = read_card(tiny_records)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.h5")
        write_sequences(path, card, {"strokes": [np.ones((3, 3), np.float32)] * 2}, {})
        path.write_bytes(data.draw(damaged(path.read_bytes())))
        sequences = refused(read_sequences, path, card, "strokes")
    for sequence in sequences or ():
        assert sequence.dtype == np.float32
        assert sequence.shape[1] == 3
        assert np.isfinite(sequence).all()


# ------------------------------------------------------------------------------------- WAV


def wav(num=300):
    content = io.BytesIO()
    values = np.sin(np.arange(num)).astype(np.float32)
    soundfile.write(content, values, 8000, format="WAV", subtype="PCM_16")
    return content.getvalue()


def test_a_header_that_claims_4_gigabytes(tmp_path):
    content = bytearray(wav())
    for place in (4, content.index(b"data") + 4):
        content[place : place + 4] = struct.pack("<I", 2**32 - 1)
    (tmp_path / "a.wav").write_bytes(content)
    with resident(2**27):
        waveform = refused(read_sound, tmp_path / "a.wav", 8000)
    assert waveform is None or len(waveform) == 300


def test_hours_of_silence(tmp_path):
    path = tmp_path / "a.wav"
    with soundfile.SoundFile(
        path, "w", 8000, 1, format="FLAC", subtype="PCM_16", compression_level=1.0
    ) as file:
        file.write(np.zeros(10**5, np.int16))
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # of the 36 bits of the number of samples
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    with resident(2**27), pytest.raises(UserError, match="declares 68719476735 samples, it has"):
        read_sound(path, 8000)


@fuzz(max_examples=150)
@given(data=st.data())
def test_damaged_sounds(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.wav")
        path.write_bytes(data.draw(damaged(wav(), (b"data", b"fmt ", b"RIFF", b"LIST"))))
        waveform = refused(read_sound, path, 8000)
    assert waveform is None or (waveform.ndim == 1 and np.isfinite(waveform).all())


# --------------------------------------------------------------------------- what is ours


def test_what_is_behind_a_link_stays(tmp_path, tiny_run, tiny_audio):
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    mine = ["photo.png", "sample_2019.wav", "sample_07.wav", "sample_x.wav", "samples.h5.old"]
    for name in mine:
        (folder / name).write_text("mine")
    audio = medium_of(read_card(tiny_audio))
    for num in (5, 3):
        audio.write_sounds(link, "sample", [np.zeros((4, 7), np.float32)] * num)
    written = [f"sample_{i:02d}.wav" for i in range(3)]
    assert sorted(p.name for p in folder.iterdir()) == sorted([*mine, *written])
    run = RunDirectory.open(tiny_run)
    with pytest.raises(UserError, match="holds no SavedModel"):
        saved_model.write(ServedModel(run.load().model, run.card), link, {})
    assert sorted(p.name for p in folder.iterdir()) == sorted([*mine, *written])
    assert link.is_symlink()
