"""Sound files: exact samples of every format, what is joined, cut, damaged or of no kind."""

import contextlib
import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from stcn_tf.data.decoding import MAX_PEAK, Sound, SoundFault

CASES = Path(__file__).parents[1] / "data_prep" / "cases" / "audio"
DECODERS_DIFFER = 3e-6  # a tenth of what 16 bits tell apart
LONG = 70_001  # samples: more than a block
ID3 = b"ID3\3\0\0\0\2\1\0" + b"\0" * (2 * 128**2 + 128)
PICTURE = ID3[:10] + np.random.default_rng(0).bytes(len(ID3) - 10)
RNG = np.random.default_rng(1)
ID3V1 = b"TAG".ljust(128)
# APE's tag, whose head may lack: a comment that looks like sound.
_COMMENT = struct.pack("<II", 3000, 0) + b"Comment\0" + RNG.bytes(3000)
_APE = b"APETAGEX" + struct.pack("<III", 2000, len(_COMMENT) + 32, 1)
APE = _APE + struct.pack("<I8x", 5 << 29) + _COMMENT + _APE + struct.pack("<I8x", 4 << 29)


def noise(length=LONG, seed=0, scale=3000):
    """[length] int16."""
    return np.random.default_rng(seed).normal(0, scale, length).astype(np.int16)


def encoded(samples, form, subtype=None, rate=16_000, **options):
    """By libsndfile."""
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format=form, subtype=subtype, **options)
    return content.getvalue()


def muxed(form, codec, samples, kind="s16p", path=None, rate=16_000, **options):
    """By FFmpeg, in memory or by way of a file."""
    content = io.BytesIO()
    with av.open(str(path) if path else content, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.format = kind
        values = samples / np.float32(32768) if kind == "fltp" else samples
        frame = av.AudioFrame.from_ndarray(values[np.newaxis], kind, "mono")
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode()])
    return path.read_bytes() if path else content.getvalue()


@pytest.fixture
def read(tmp_path):
    """Function bytes -> the sound's facts, and its samples in full scale."""

    def read(content, rate=0):
        path = tmp_path / "sound.bin"
        path.write_bytes(content)
        with path.open("rb", buffering=0) as file, Sound(file) as sound:
            samples = np.concatenate([np.empty(0, np.float32), *sound.mono(rate)])
            return (sound.sample_rate_hz, sound.num_channels, sound.is_wide), samples

    return read


@pytest.fixture
def fault(read):
    """Function bytes -> what is wrong with them."""

    def fault(content):
        with pytest.raises(SoundFault) as error:
            read(content)
        assert str(error.value).isprintable()
        return str(error.value)

    return fault


# ---------------------------------------------------------------------------------- exact samples


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        *(("WAV", s) for s in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "ULAW", "ALAW")),
        *(("WAVEX", s) for s in ("PCM_16", "PCM_24")),
        *(("FLAC", s) for s in ("PCM_S8", "PCM_16", "PCM_24")),
        *(("RF64", s) for s in ("PCM_16", "PCM_24")),
        *(("NIST", s) for s in ("PCM_16", "PCM_24", "ULAW")),
        *(("AIFF", s) for s in ("PCM_S8", "PCM_16", "PCM_24", "FLOAT")),
        *(("AU", s) for s in ("PCM_16", "PCM_24", "ULAW", "FLOAT")),
        ("WAV", "DOUBLE"),
        ("WAV", "IMA_ADPCM"),
    ],
)
def test_samples_are_as_libsndfile_reads_them(read, form, subtype):
    values = RNG.normal(0, 0.1, (LONG, 2)).clip(-1, 1)
    values[:2] = -1, 32767 / 32768
    content = encoded(values, form, subtype, 11_025)
    expected = soundfile.read(io.BytesIO(content), dtype="float32")[0]
    for behind in (b"", b"TAG".ljust(128)):
        facts, samples = read(content + behind)
        wide = subtype in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")
        assert facts == (11_025, 2, wide)
        np.testing.assert_array_equal(samples, expected.mean(axis=1))


@pytest.mark.parametrize("length", [1, 100, 300, 3000, LONG])
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_has_as_many_samples_as_were_encoded(read, subtype, length):
    content = encoded(noise(length), "OGG", subtype)
    facts, samples = read(content)
    assert facts == (16_000, 1, False) and len(samples) == length
    expected = soundfile.read(io.BytesIO(content), dtype="float32")[0]
    # Opus is decoded to 48 kHz, and resampled.
    assert np.abs(samples - expected).max() < (1e-6 if subtype == "VORBIS" else 0.1)


@pytest.mark.parametrize("bitrate_mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_mp3_has_as_many_samples_as_were_encoded(read, bitrate_mode, rate):
    for length in (5000, LONG):
        content = encoded(noise(length), "MP3", rate=rate, bitrate_mode=bitrate_mode)
        expected = soundfile.read(io.BytesIO(content), dtype="float32")[0]
        for tag in (b"", ID3, PICTURE, ID3 + PICTURE):
            _, samples = read(tag + content)
            np.testing.assert_allclose(samples, expected, rtol=0, atol=DECODERS_DIFFER)


def test_other_formats(read):
    samples = noise()
    for form, codec in (("wv", "wavpack"), ("ipod", "alac")):
        facts, found = read(muxed(form, codec, samples))
        assert facts == (16_000, 1, False)
        np.testing.assert_array_equal(found, samples / np.float32(32768))
    for form, codec, kind in (
        ("adts", "aac", "fltp"),
        ("mp4", "libopus", "s16"),
        ("mp2", "mp2", "s16"),
        ("mp4", "libmp3lame", "s16p"),
    ):
        _, found = read(muxed(form, codec, samples, kind))
        assert LONG <= len(found) < LONG + 3 * 1152


def test_tags_in_front(read):
    """Of the version 2 of ID3, the second with a foot; other formats may have them, too."""
    samples = noise() / np.float32(32768)
    long = b"ID3\4\0\x10\0\0\1\0" + bytes(128) + b"3DI\4\0\x10\0\0\1\0"
    for form in ("FLAC", "AIFF", "WAV", "AU"):
        for tag in (ID3, PICTURE, long, long + ID3):
            np.testing.assert_array_equal(read(tag + encoded(noise(), form))[1], samples)


@pytest.mark.parametrize(
    ("name", "lag", "error"),
    [("id3v2.flac", 0, 0), ("x.ogg", 0, 0), ("a.opus", 0, 0.1), ("d.m4a", 0, 0.1)],
)
def test_given_files(read, name, lag, error):
    expected = read((CASES / "good1.wav").read_bytes())[1]
    facts, samples = read((CASES / name).read_bytes())
    assert facts == (16_000, 1, False) and len(samples) == 16_000
    assert np.abs(samples - expected).max() <= error


def shortened(samples, block=256):
    """SPHERE, compressed by shorten 2: first differences, Rice coded."""
    bits = []

    def put(value, low):
        ones = [value >> i & 1 for i in reversed(range(low))]
        bits.extend([0] * (value >> low) + [1] + ones)

    def put_long(value):
        put(value.bit_length(), 2)
        put(value, value.bit_length())

    for value in (5, 1, block, 0, 0, 0):  # 16 bits, low bytes first; channels; ...
        put_long(value)
    differences = np.diff(samples.astype(int), prepend=0)
    for start in range(0, len(samples), block):
        piece = differences[start : start + block]
        if len(piece) < block:
            put(5, 2)  # another block size
            put_long(len(piece))
        put(1, 2)  # first differences
        put(8, 3)
        for value in piece.tolist():
            put(2 * value if value >= 0 else -2 * value - 1, 9)
    put(4, 2)  # the end
    header = (
        f"NIST_1A\n   1024\nchannel_count -i 1\nsample_count -i {len(samples)}\n"
        "sample_rate -i 16000\nsample_n_bytes -i 2\nsample_byte_format -s2 10\n"
        "sample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
    )
    return header.encode().ljust(1024) + b"ajkg\2" + np.packbits(bits).tobytes() + bytes(4)


def test_sphere_compressed_by_shorten(read):
    samples = noise(5003, scale=500)
    np.testing.assert_array_equal(read(shortened(samples))[1], samples / np.float32(32768))


# --------------------------------------------------------------- joined, streamed, begun anywhere


def test_joined_mp3_files(read, fault):
    first, second = (encoded(noise(seed=seed), "MP3") for seed in (1, 2))
    alone = [read(content)[1] for content in (first, second)]
    lyrics = b"LYRICSBEGIN" + RNG.bytes(500) + b"000511LYRICS200" + ID3V1
    joins = (
        b"",
        ID3,
        PICTURE,
        ID3V1,
        APE,
        APE[32:],
        APE + ID3V1 + PICTURE,
        APE[32:] + ID3V1,
        lyrics,
    )
    for tag in joins:
        assert len(read(first + tag)[1]) == LONG
        if tag in (ID3, PICTURE, APE, APE[32:]):
            assert len(read(tag + first)[1]) == LONG
            assert fault(tag + first[:-9000]).startswith("is truncated: its header declares 124")
        joined = tag * (tag != ID3V1) + first + tag + second
        samples = read(joined)[1]
        # What the second's encoder put before the sound and behind it stays.
        assert 2 * LONG < len(samples) < 2 * LONG + 4 * 1152
        np.testing.assert_allclose(samples[:LONG], alone[0], atol=1e-6)
        starts = [
            start
            for start in range(LONG, len(samples) - LONG + 1)
            if np.abs(samples[start + 3000 :][:500] - alone[1][3000:3500]).max() < 1e-3
        ]
        assert len(starts) == 1
        # The decoder does not begin anew, which is heard in its first frames alone.
        found = samples[starts[0] :][:LONG]
        np.testing.assert_allclose(found[3000:], alone[1][3000:], atol=1e-6)
    # Three, and the last two frames lack.
    assert 3 * LONG < len(read(first + second + first)[1]) < 3 * LONG + 6 * 1152
    frame = first.index(first[:3], 4)
    assert fault(first[: -2 * frame - 1]).startswith("is truncated: its header declares 124 MPEG")
    assert len(read(first[:-20])[1]) == LONG
    cut = first[: len(first) // 2]
    for joined in (cut + second, second + cut):
        assert fault(joined).startswith(("is truncated: its header decl", "is damaged after 34"))
    other = encoded(noise(), "MP3", rate=22_050)
    assert fault(first + other).startswith("changes its rate or channels after 70")
    samples = read((CASES / "two.mp3").read_bytes())[1]
    assert len(samples) == 33_455
    good = read((CASES / "good1.wav").read_bytes())[1]
    assert np.corrcoef(samples[17_280 : 17_280 + 8000], good[:8000])[0, 1] > 0.9999


def test_mp3_without_a_declared_length(read, fault):
    content = encoded(noise(), "MP3")
    frames = content[content.index(content[:3], 4) :]  # the header lies in a frame of its own
    whole = read(frames)[1]
    assert LONG < len(whole) < LONG + 4 * 576
    for changed in (
        ID3 + frames,
        PICTURE + frames,
        frames + b"TAG".ljust(128),
        frames + bytes(3000),
        bytes(3000) + frames,
        RNG.bytes(20_000) + frames,
        b"junk" + content,
        frames + RNG.bytes(3000),
        frames[:-20],  # the last frame is cut
    ):
        samples = read(changed)[1]
        np.testing.assert_allclose(samples[:LONG], whole[:LONG], atol=1e-6)
    for begun in (frames[100:], RNG.bytes(700) + frames[100:]):
        samples = read(begun)[1]
        assert len(samples) == len(whole) - 576
        np.testing.assert_allclose(samples[3000:], whole[3576:], atol=1e-6)
    assert len(read(frames + frames)[1]) == 2 * len(whole)
    # A hole, or what is put in: the sound before and behind does not belong together.
    for damaged in (
        frames[:6000] + RNG.bytes(3000) + frames[6000:],
        frames[:6000] + bytes(3000) + frames[6000:],
        frames[:6000] + frames[6500:],
    ):
        assert fault(damaged).startswith("is damaged after 24")
    assert len(read((CASES / "cut.mp3").read_bytes())[1]) in (16_704, 17_280)


def pages_of(content):
    """Those of an Ogg file."""
    pages = []
    while content:
        lengths = content[27 : 27 + content[26]]
        size = 27 + len(lengths) + sum(lengths)
        pages.append(content[:size])
        content = content[size:]
    return pages


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_joined_ogg_streams(read, fault, subtype):
    first, second = (encoded(noise(n, n), "OGG", subtype) for n in (LONG, 777))
    alone = [read(content)[1] for content in (first, second)]
    if subtype == "OPUS":  # a resampler does not begin anew
        assert len(read(first + second + first)[1]) == 2 * LONG + 777
    else:
        joined = read(second + first + second + b"behind")[1]
        np.testing.assert_array_equal(joined, np.concatenate([alone[1], alone[0], alone[1]]))
    between = bytes(4096)
    assert len(read(first + between + second)[1]) == LONG + 777
    assert "does not end with a last page" in fault(first[: len(first) // 2] + second)
    other = encoded(noise(), "OGG", rate=8000)
    assert fault(second + other).startswith("changes its rate or channels") or subtype == "OPUS"
    pages = pages_of(first)
    # A page is lost, damaged, or the last one.
    assert fault(b"".join(pages[:4] + pages[5:])).startswith(("is damaged", "is truncated"))
    wrong = bytearray(first)
    wrong[len(first) // 2] ^= 1
    assert fault(bytes(wrong)).startswith("is damaged: its header declares")
    assert fault(b"".join(pages[:-1])) == "is truncated: it does not end with a last page"


def test_a_vorbis_stream_that_was_cut_from_a_longer_one(read):
    pages = pages_of(encoded(noise(), "OGG"))
    granule = int.from_bytes(pages[3][6:14], "little")
    _, samples = read(b"".join(pages[:2] + pages[4:]))
    whole = read(b"".join(pages))[1]
    assert LONG - granule - 1024 < len(samples) <= LONG - granule
    np.testing.assert_allclose(samples, whole[-len(samples) :], atol=1e-6)


@pytest.mark.parametrize("riff", [0, 36, 2**32 - 1, None])
@pytest.mark.parametrize(
    "size",
    [0, *(2**n - less for n in (31, 32) for less in (1, 37, 4096, 65_536)), 2**31],
)
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
def test_wav_from_a_pipe(read, form, size, riff):
    samples = noise(5000)
    content = bytearray(encoded(samples, form, "PCM_16"))
    if riff is not None:
        content[4:8] = struct.pack("<I", riff)
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)
    np.testing.assert_array_equal(read(content)[1], samples / np.float32(32768))


def test_wav_that_declares_nothing(fault):
    content = encoded(np.empty(0), "WAV")
    note = b"LIST" + struct.pack("<I", 12) + b"INFOISFT\4\0\0\0"
    assert fault(content) == fault(content + note) == "has 0 samples"


def test_rf64_that_declares_nothing_or_too_much(read, fault):
    samples = noise(5000)
    content = bytearray(encoded(samples, "RF64", "PCM_16"))
    place = content.index(b"ds64") + 16
    content[place : place + 8] = bytes(8)  # as of FFmpeg's -rf64 to a pipe
    np.testing.assert_array_equal(read(content)[1], samples / np.float32(32768))
    content[place : place + 8] = struct.pack("<Q", 2**63)
    assert fault(content).startswith(f"is truncated: its header declares {2**63} bytes of samples")


@pytest.mark.parametrize(
    ("subtype", "valid"),
    [("PCM_32", 24), ("PCM_32", 20), ("PCM_24", 20), ("PCM_24", 16), ("PCM_16", 12), ("PCM_16", 0)],
)
def test_wav_of_which_not_all_bits_are_valid(read, subtype, valid):
    samples = noise()
    content = bytearray(encoded(samples, "WAVEX", subtype))
    place = content.index(b"fmt ") + 26
    content[place : place + 2] = struct.pack("<H", valid)
    np.testing.assert_array_equal(read(content)[1], samples / np.float32(32768))


def test_flac_without_a_declared_length(read, fault):
    samples = noise()
    content = bytearray(encoded(samples, "FLAC"))
    content[21] &= 0xF0  # of 36 bits
    content[22:26] = bytes(4)
    np.testing.assert_array_equal(read(content)[1], samples / np.float32(32768))
    content[26:42] = bytes(16)  # no checksum either
    np.testing.assert_array_equal(read(content)[1], samples / np.float32(32768))
    content[len(content) // 2] ^= 1
    assert fault(content).startswith("is damaged after")


# ------------------------------------------------------------------------------- damaged, foreign


FORMS = {
    **{f: encoded(noise(1500), f) for f in ("WAV", "FLAC", "OGG", "AIFF", "AU", "NIST", "RF64")},
    "OPUS": encoded(noise(1500), "OGG", "OPUS"),
    "24 bits": encoded(noise(1500), "WAVEX", "PCM_24"),
    "M4A": muxed("ipod", "aac", noise(1500), "fltp"),
    "ALAC": muxed("ipod", "alac", noise(1500)),
    "WavPack": muxed("wv", "wavpack", noise(1500)),
}


@pytest.mark.parametrize("form", FORMS)
def test_files_that_are_cut_anywhere(read, form):
    content = FORMS[form]
    whole = read(content)[1]
    for size in range(0, len(content), 1 + len(content) // 300):
        with contextlib.suppress(SoundFault):
            samples = read(content[:size])[1]
            # Tags may be missing, but no sample; or there is no header of any.
            assert form in ("M4A", "ALAC", "WavPack") and len(samples) in (0, len(whole))


@pytest.mark.parametrize(("codec", "kind"), [("aac", "fltp"), ("alac", "s16p")])
def test_m4a_whose_header_comes_first(tmp_path, read, fault, codec, kind):
    content = muxed("ipod", codec, noise(), kind, tmp_path / "x.m4a", movflags="faststart")
    assert content.index(b"moov") < content.index(b"mdat")
    assert LONG <= len(read(content)[1]) <= LONG + 1024
    for missing in (1, 300, len(content) // 2):
        assert fault(content[:-missing]) == (
            f"is truncated: its last packet ends at byte {len(content)} of {len(content) - missing}"
        )


def test_checksums_of_flac(fault):
    for subtype in ("PCM_S8", "PCM_16", "PCM_24"):
        content = bytearray(encoded(noise(), "FLAC", subtype))
        content[26] ^= 1
        assert fault(content) == "is damaged: its samples have another checksum than declared"


def test_faults(fault):
    assert fault(b"") == "is empty"
    assert fault(ID3) == "is damaged: it cannot be opened as MP3"
    assert fault(b"hello") == (
        "is none of WAV, FLAC, OGG, AIFF, AU, NIST SPHERE, M4A, WavPack, AAC, MP3"
    )
    assert fault(RNG.bytes(20_000)).startswith("is none of")
    assert fault("\ufeffUTF-16".encode("utf-16-le")).startswith("is none of")
    assert fault(b"\xff\xfb" + b"text" * 1000) == "is damaged: it cannot be opened as MP3"
    content = encoded(noise(1000), "WAV")

    def changed(offset, new):
        return fault(content[:offset] + new + content[offset + len(new) :])

    assert changed(40, struct.pack("<I", 2001)) == (
        "is truncated: its header declares 2001 bytes of samples, but 2000 are there"
    )
    assert changed(22, struct.pack("<H", 0)).startswith("is ")  # channels
    assert changed(22, struct.pack("<H", 65_535)).startswith("is ")
    assert changed(24, struct.pack("<I", 0)).startswith("is ")  # sample rate
    assert changed(32, struct.pack("<HH", 8, 64)) == "is WAV of a coding that is not read"
    for form, name in (("WAV", "WAV"), ("NIST", "NIST SPHERE"), ("AU", "AU"), ("RF64", "WAV")):
        joined = encoded(noise(), form, "PCM_16") * 2
        assert fault(joined) == f"is several {name} files, joined; accepted: one"
    note = b"LIST" + struct.pack("<I", 12) + b"INFOISFT\4\0\0\0"
    assert fault((content + note) * 2) == "is several WAV files, joined; accepted: one"
    assert fault(content[:12] + b"JUNK\0\0\0\0" * 5000) == (
        "has no samples in its first 1000 chunks"
    )
    for value in (np.nan, np.inf, 1e300):
        wrong = encoded(np.array([0.1, value, 0.2]), "WAV", "DOUBLE")
        assert fault(wrong) == "has samples that are no numbers"


def test_sphere_that_ends_early(fault):
    content = encoded(noise(999), "NIST", "PCM_16")
    assert fault(content[:1023]) == "is truncated: it ends before its samples"
    assert fault(content[:-2]) == "is damaged: its header declares 999 samples, it has 998"


def test_floats_beyond_full_scale(read, fault):
    """Mixes exceed it; what is of the range of 16-bit numbers was never divided."""
    values = np.array([1.5, -2.0, MAX_PEAK, 0.25])
    np.testing.assert_array_equal(read(encoded(values, "WAV", "FLOAT"))[1], values)
    for peak in (32767.0, MAX_PEAK + 1, 1e30):
        values = np.zeros(LONG)
        values[1], values[-1] = 20, -peak
        assert fault(encoded(values, "WAV", "DOUBLE")).startswith(
            f"reaches {max(20, peak):g} times full scale; accepted: up to 16, where full scale of "
            "floats is 1: divide them"
        )


def movie(num_audio, num_video):
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as container:
        sounds = [container.add_stream("aac", rate=16_000) for _ in range(num_audio)]
        videos = [container.add_stream("mpeg4", rate=25) for _ in range(num_video)]
        for stream in videos:
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")) + stream.encode())
        for stream in sounds:
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 2048), np.float32), "fltp", "stereo")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame) + stream.encode())
    return content.getvalue()


def test_one_sound_in_a_file(fault):
    for num_audio, num_video in ((0, 1), (1, 1), (2, 0)):
        assert fault(movie(num_audio, num_video)) == (
            f"holds {num_audio} sounds and {num_video} videos; accepted: 1 sound"
        )


def test_nothing_else_is_opened(tmp_path, read, fault):
    """No playlist, no script and no picture; neither by content nor by name."""
    (tmp_path / "secret.wav").write_bytes(encoded(noise(), "WAV"))
    for content in (
        b"ffconcat version 1.0\nfile 'secret.wav'\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.wav\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"RIFF\0\0\0\0AVI LIST" + bytes(100),
        b"\x1aE\xdf\xa3" + bytes(100),
    ):
        assert fault(content).startswith("is none of")
    # An M4A whose samples are said to lie in another file.
    content = muxed("ipod", "alac", noise(1500))
    url = b"\0\0\0\x0curl \0\0\0\1"
    assert content.count(url) == 1
    _, samples = read(content.replace(url, b"\0\0\0\x0curl \0\0\0\0"))
    np.testing.assert_array_equal(samples, read(content)[1])


def test_more_packets_than_bytes(fault):
    content = bytearray(muxed("ipod", "aac", noise(1500), "fltp"))
    place = content.index(b"stsz")
    content[place + 8 : place + 16] = struct.pack(">II", 1, 30_000_000)  # a gigabyte in memory
    assert fault(content) == "is damaged: its header declares more packets than it has bytes"


def test_decoders_are_quiet_and_interrupts_are_heard(tmp_path):
    (tmp_path / "long.mp3").write_bytes(encoded(noise(2_000_000), "MP3") * 3)
    content = encoded(noise(), "MP3")
    (tmp_path / "bad.mp3").write_bytes(content[:6000] + RNG.bytes(99) + content[6000:])
    code = (
        "import _thread, sys, threading\n"
        "from stcn_tf.data.decoding import Sound, SoundFault\n"
        "for name in sys.argv[1:]:\n"
        "    with open(name, 'rb', buffering=0) as file, Sound(file) as sound:\n"
        "        try:\n"
        "            for number, block in enumerate(sound.mono()):\n"
        "                if not number:\n"
        "                    threading.Timer(0.02, _thread.interrupt_main).start()\n"
        "        except (KeyboardInterrupt, SoundFault) as error:\n"
        "            print(type(error).__name__)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, "long.mp3"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("KeyboardInterrupt\n", "")
    command[-1] = "bad.mp3"
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.stdout.startswith("SoundFault") and not result.stderr
