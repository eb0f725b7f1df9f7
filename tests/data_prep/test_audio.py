"""Decoding, the cache, cutting: exact samples, restarts, flat memory, every fault by its text."""

import dataclasses
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from data_prep import wav
from data_prep.common import audio
from data_prep.common.raw_files import FileFault
from stcn_tf.data import decoding
from stcn_tf.support.errors import UserError

ROOT = Path(audio.__file__).parents[1]
LONG = 150_001  # samples: more than two blocks


def noise(length, seed=0, scale=3000):
    """[length] int16."""
    return np.clip(np.random.default_rng(seed).normal(0, scale, length), -32768, 32767).astype(
        np.int16
    )


def put(path, samples, rate=16_000, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


def decoded(path, **options):
    blocks = []
    sound = audio.decode(path, audio.Decoding(**options), lambda block: blocks.append(block.copy()))
    samples = np.concatenate(blocks)
    assert (sound.num_samples, sound.dtype) == (len(samples), samples.dtype.name)
    return samples, sound


def fault(path, **options):
    with pytest.raises(FileFault) as error:
        decoded(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def cached(path, cache, **options):
    cache.mkdir(exist_ok=True)
    return audio.decode_to_cache(str(path), str(cache), audio.Decoding(**options))


# --------------------------------------------------------------------------------- decoding


def test_wider_samples_stay_fractions_of_full_scale(tmp_path):
    values = np.random.default_rng(1).integers(-(2**23), 2**23, LONG) / 2**23
    for subtype in ("PCM_24", "FLOAT", "DOUBLE"):
        path = put(tmp_path / "x.wav", values, subtype=subtype)
        read, _ = decoded(path)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, values)  # 24 bits fit
    read, _ = decoded(path, always_int16=True)
    np.testing.assert_array_equal(read, np.clip(np.rint(values * 32768), -32768, 32767))


def test_beyond_full_scale_fractions_stay_and_integers_are_clipped(tmp_path):
    path = put(tmp_path / "x.wav", np.array([1.5, -2.0, 0.25]), subtype="FLOAT")
    np.testing.assert_array_equal(decoded(path)[0], [1.5, -2.0, 0.25])
    read, _ = decoded(path, always_int16=True)
    np.testing.assert_array_equal(read, [32767, -32768, 8192])


def test_channels_are_averaged(tmp_path):
    samples = np.stack([noise(LONG, 1), noise(LONG, 2), noise(LONG, 3)], axis=1)
    path = put(tmp_path / "x.flac", samples)
    assert fault(path, mono_advice=" (say so)") == "has 3 channels; accepted: 1 (say so)"
    read, sound = decoded(path, mixes_channels=True)
    assert sound.num_samples == LONG
    # A mean of three integers is never halfway between two.
    np.testing.assert_array_equal(read, np.rint(samples.astype(np.int64).sum(axis=1) / 3))


@pytest.mark.parametrize("rates", [(44_100, 16_000), (8_000, 16_000), (22_050, 11_025)])
def test_resampling_in_blocks_is_resampling(tmp_path, rates):
    samples = noise(LONG)
    path = put(tmp_path / "x.wav", samples, rates[0])
    read, sound = decoded(path, sample_rate_hz=rates[1], resamples=True)
    assert sound.sample_rate_hz == rates[1]
    whole = soxr.resample(samples.astype(np.float32) / 32768, *rates, quality="HQ")
    np.testing.assert_array_equal(read, np.rint(whole * 32768))
    assert fault(path, sample_rate_hz=rates[1]) == (
        f"has a sample rate of {rates[0]} Hz; accepted: {rates[1]}"
    )


def test_blocks_do_not_matter(tmp_path, monkeypatch):
    path = put(tmp_path / "x", noise(LONG) / 32768, format="OGG")
    read, sound = decoded(path)
    assert sound == (16_000, "int16", LONG)
    for block_values in (999, 2**20):
        monkeypatch.setattr(decoding, "_BLOCK_VALUES", block_values)
        np.testing.assert_array_equal(decoded(path)[0], read)


def test_faults_of_files(tmp_path):
    path = tmp_path / "x"
    assert fault(path) == "cannot be read: No such file or directory"
    assert fault(tmp_path) == "is no regular file"
    assert fault("x\0y") == "cannot be read: embedded null byte"
    os.mkfifo(path)
    assert fault(path) == "is no regular file"
    path.unlink()
    put(path, np.zeros(0), format="WAV")
    assert fault(path) == "has 0 samples"
    for rate in (999, 384_001, 2**31 - 1):
        put(path, noise(199), rate, format="WAV")
        assert fault(path) == f"has a sample rate of {rate} Hz; accepted: 1000 to 384000"
    put(path, noise(199), format="WAV")
    assert fault(path, min_samples=200) == "has 199 samples, at least 200 are needed"
    path.write_bytes(path.read_bytes()[:-9])
    assert fault(path).startswith("is truncated: its header declares 398 bytes of samples, but 389")


# ------------------------------------------------------------------------------------ cache


def test_sums_are_exact(tmp_path):
    samples = noise(LONG, scale=20_000)
    file = cached(put(tmp_path / "x.wav", samples), tmp_path / "cache").content
    integers = samples.astype(np.int64)
    assert file.total == float(Fraction(int(integers.sum()), 2**15))
    assert file.square_total == float(Fraction(int(np.square(integers).sum()), 2**30))


def test_entries_are_used_again_only_where_nothing_changed(tmp_path):
    cache = tmp_path / "cache"
    path = put(tmp_path / "x.wav", noise(5000), 22_050)
    options = {"sample_rate_hz": 16_000, "resamples": True}
    first = cached(path, cache, **options)
    again = cached(path, cache, **options)
    assert not first.content.is_reused
    assert again == first._replace(content=first.content._replace(is_reused=True))
    for field in dataclasses.fields(audio.Decoding):
        if field.name != "resamples":
            other = {"sample_rate_hz": 11_025, "mono_advice": "!"}.get(field.name, 2)
            assert not cached(path, cache, **(options | {field.name: other})).content.is_reused

    # A file of the same size and time.
    moment = path.stat().st_mtime_ns
    put(path, noise(5000, seed=1), 22_050)
    os.utime(path, ns=(moment, moment))
    changed = cached(path, cache, **options)
    assert not changed.content.is_reused and changed.sha256 != first.sha256
    assert changed.content.total != first.content.total


@pytest.mark.parametrize("suffix", ["samples", "json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "missing"])
def test_damaged_entries_are_decoded_anew(tmp_path, suffix, damage):
    cache = tmp_path / "cache"
    path = put(tmp_path / "x.wav", noise(5000))
    first = cached(path, cache)
    good = {file.name: file.read_bytes() for file in cache.iterdir()}
    (entry,) = cache.glob(f"*.{suffix}")
    data = entry.read_bytes()
    if damage == "missing":
        entry.unlink()
    else:
        flipped = data[:20] + bytes([data[20] ^ 4]) + data[21:]
        content = {"flipped": flipped, "truncated": data[:-7], "emptied": b""}[damage]
        entry.write_bytes(content)
    if (suffix, damage) == ("json", "flipped"):
        entry.write_text(entry.read_text(encoding="latin-1").replace("16000", "12000"))
    assert cached(path, cache) == first
    assert {file.name: file.read_bytes() for file in cache.iterdir()} == good


def test_a_fault_leaves_no_entry(tmp_path):
    data = put(tmp_path / "x.flac", noise(LONG)).read_bytes()
    (tmp_path / "x.flac").write_bytes(data[:-1000])
    result = cached(tmp_path / "x.flac", tmp_path / "cache")
    assert result.content is None
    assert result.fault.startswith("is damaged")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_fault_of_the_file(tmp_path):
    path = put(tmp_path / "x.wav", noise(500))
    with pytest.raises(UserError, match="cannot be written .No such file"):
        audio.decode_to_cache(str(path), str(tmp_path / "none"), audio.Decoding())


def test_cache_folder_goes_when_all_is_well_or_nothing_is_in_it(tmp_path, capsys):
    folder = tmp_path / ".out.decoded"
    with audio.cache_beside(tmp_path / "out") as cache:
        assert cache == folder
        (cache / f"{'a' * 32}.json").touch()
    assert not folder.exists()
    with pytest.raises(KeyError), audio.cache_beside(tmp_path / "out"):
        raise KeyError
    assert not folder.exists() and capsys.readouterr().err == ""
    with pytest.raises(KeyError), audio.cache_beside(tmp_path / "out") as cache:
        (cache / f"{'a' * 32}.json").touch()
        raise KeyError
    assert folder.exists()
    assert capsys.readouterr().err == (
        f"what was decoded stays in {folder}: the same command goes on from there\n"
    )
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="decoded: holds 'thesis.tex', which was not decoded"):
        with audio.cache_beside(tmp_path / "out"):
            pass
    assert (folder / "thesis.tex").read_text() == "precious"


# -------------------------------------------------------------------------------- sequences


def files_of_lengths(tmp_path, *lengths):
    """Decoded files, one of them of floats, and their samples in full scale."""
    files, samples = {}, []
    for number, length in enumerate(lengths):
        values = noise(length, number)
        subtype = "PCM_16" if number else "FLOAT"
        path = put(tmp_path / f"{number}.wav", values / 32768, subtype=subtype)
        files[f"f{number}"] = cached(path, tmp_path / "cache").content
        samples.append((values / 32768).astype(np.float32))
    assert {file.dtype for file in files.values()} == {"int16", "float32"}
    return files, samples


def test_samples_are_read_across_files(tmp_path):
    files, samples = files_of_lengths(tmp_path, 7, 1, 11, 5)
    whole = np.concatenate(samples)
    stream = audio.Samples(files)
    assert len(stream) == 24
    for start in range(24):
        for stop in range(start + 1, 25):
            piece = stream.read(start, stop)
            assert piece.dtype == np.float32
            np.testing.assert_array_equal(piece, whole[start:stop])
    places = [stream.place(index) for index in (0, 6, 7, 8, 18, 19, 23)]
    assert places == ["f0@0", "f0@6", "f1@0", "f2@0", "f2@10", "f3@0", "f3@4"]
    Path(files["f2"].samples).write_bytes(b"")
    with pytest.raises(UserError, match="was changed while it was read"):
        stream.read(6, 10)


def test_files_are_cut_into_whole_frames_and_sequences(tmp_path):
    # Frames of 3 samples: 2 (one sample over), 7 (none over), 5 (two over).
    files, samples = files_of_lengths(tmp_path, 7, 21, 17)

    def pieces(plan):
        result = list(plan.pieces())
        assert plan.num_sequences == len(result)
        assert plan.num_steps * 3 == sum(len(piece) for _, piece in result)
        assert [name for name, _ in plan.pieces()] == [name for name, _ in result]
        return dict(result)

    whole = pieces(audio.plan_files(files, 3))
    assert list(whole) == ["f0", "f1", "f2"]
    for piece, values, length in zip(whole.values(), samples, (6, 21, 15), strict=True):
        np.testing.assert_array_equal(piece, values[:length])

    # Sequences of 3 frames; the first file is shorter than that.
    cut = pieces(audio.plan_files(files, 3, sequence_frames=3))
    assert list(cut) == ["f0@0", "f1@0", "f1@9", "f2@0"]
    np.testing.assert_array_equal(cut["f0@0"], samples[0][:6])
    np.testing.assert_array_equal(cut["f1@9"], samples[1][9:18])
    np.testing.assert_array_equal(cut["f2@0"], samples[2][:9])


def test_sums_of_files_and_pieces(tmp_path):
    files, samples = files_of_lengths(tmp_path, 700, 210, 170)
    everything = np.concatenate(samples).astype(np.float64)
    sums = audio.sums_of_files(files.values())
    assert sums == (1080, everything.sum(), np.square(everything).sum())  # of few bits: exact
    assert audio.sums_of_files([*reversed(files.values())]) == sums
    by_piece = audio.sums_of_pieces(audio.plan_files(files, 10, sequence_frames=7))
    cut = np.concatenate([samples[0], samples[1], samples[2][:140]]).astype(np.float64)
    assert by_piece == (1050, cut.sum(), np.square(cut).sum())


# ----------------------------------------------------------------------- restarts and memory


@pytest.fixture
def source(tmp_path):
    """Five files, each of fewer samples than a block."""
    for number in range(5):
        put(tmp_path / "raw" / f"{number}.wav", noise(3000 + 100 * number, number))
    return tmp_path / "raw"


def interrupt_after(monkeypatch, owner, name, calls):
    original = getattr(owner, name)

    def interrupt(*args, **options):
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(owner, name, interrupt)


@pytest.mark.parametrize("moment", ["decoding", "writing"])
def test_an_interrupted_run_goes_on(tmp_path, source, monkeypatch, capsys, moment, files_of):
    from stcn_tf.data.card import Normalization

    wav.prepare(source, tmp_path / "good", frame_size=50)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        if moment == "decoding":
            # Each file is one block of samples: the third is half written.
            interrupt_after(patch, audio, "_to_int16", 2)
        else:
            interrupt_after(patch, Normalization, "normalize", 2)
        with pytest.raises(KeyboardInterrupt):
            wav.prepare(source, out, frame_size=50)
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "good", ".out.decoded"}
    assert f"what was decoded stays in {tmp_path / '.out.decoded'}" in capsys.readouterr().err
    wav.prepare(source, out, frame_size=50)
    num_reused = 2 if moment == "decoding" else 5
    printed = capsys.readouterr().out
    assert f"decoded {5 - num_reused} files; the samples of {num_reused} more were there" in printed
    assert files_of(out) == files_of(tmp_path / "good")
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "good", "out"}


def test_a_killed_run_goes_on(tmp_path, source, capsys, files_of):
    code = (
        "import os, pathlib, signal\n"
        "from data_prep import wav\n"
        "from data_prep.common import audio\n"
        "original, calls = audio._to_int16, []\n"
        "def die(block):\n"
        "    calls.append(block)\n"
        "    if len(calls) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return original(block)\n"
        "audio._to_int16 = die\n"
        f"wav.prepare(pathlib.Path({str(source)!r}), pathlib.Path({str(tmp_path / 'out')!r}), "
        "frame_size=50)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    # The third file was being written.
    assert sum(1 for _ in (tmp_path / ".out.decoded").iterdir()) == 5
    wav.prepare(source, tmp_path / "out", frame_size=50, workers=2)
    assert "decoded 3 files; the samples of 2 more were there" in capsys.readouterr().out
    wav.prepare(source, tmp_path / "good", frame_size=50)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "good")
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "good", "out"}


BOTH_PASSES = """
import sys
from pathlib import Path
from data_prep.common import audio
from data_prep import blizzard
source, out = map(Path, sys.argv[1:])
decoding = audio.Decoding(sample_rate_hz=16_000, resamples=True, always_int16=True)
with audio.cache_beside(out) as cache:
    names = {path.name: [path.name] for path in sorted(source.iterdir())}
    decoded = audio.decode_files(names, cache, decoding, source=source, skip_bad=False, workers=1)
    segments = blizzard.Segments(decoded.files, files_per_group=3, num_streams=5)
    plans = blizzard.plan_splits(segments, (0.8, 0.1, 0.1), source)
    assert audio.sums_of_pieces(plans["train"]).count > 0.7 * len(segments) * 8000
"""
WHOLE_COMMAND = """
import sys
from pathlib import Path
from data_prep import blizzard
source, out = map(Path, sys.argv[1:])
blizzard.prepare(source, out, split="0.8,0.1,0.1", files_per_group=3, num_streams=5)
"""


def peak_megabytes(tmp_path, code, million_samples, num_files):
    """Peak memory of a process that prepares so much audio."""
    source = tmp_path / f"raw{num_files}"
    length = million_samples * 10**6 // num_files
    samples = noise(length)
    for number in range(num_files):
        put(source / f"{number}.wav", np.roll(samples, number))
    # Not the resource module's: a new process inherits that maximum from its parent.
    code += "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    command = [sys.executable, "-c", code, str(source), str(tmp_path / f"out{num_files}")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return int(result.stdout.split()[-1]) / 1024


def test_memory_stays_flat_as_hours_grow(tmp_path):
    little = peak_megabytes(tmp_path, BOTH_PASSES, 3, num_files=2)
    much = peak_megabytes(tmp_path, BOTH_PASSES, 24, num_files=5)
    # 21 million samples more: 42 MB as they are cached, 84 MB as they are read.
    assert much - little < 10


@pytest.mark.slow
def test_memory_of_the_whole_command_stays_flat_as_hours_grow(tmp_path):
    little = peak_megabytes(tmp_path, WHOLE_COMMAND, 8, num_files=2)
    much = peak_megabytes(tmp_path, WHOLE_COMMAND, 64, num_files=5)
    # 56 million samples, an hour, more: 112 MB in the cache, 224 MB in the records.
    assert much - little < 25
