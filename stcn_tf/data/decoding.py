"""Sound files of all common formats, decoded block by block by FFmpeg (PyAV).

Content tells the format, not the name. FFmpeg gets nothing but the one file, and only as one of
the formats below. What it passes over in silence is a fault here: fewer samples than are declared,
and damage amid good samples. Tags, padding, bytes after the samples, and MPEG frames that are cut
where a file begins or ends are none.

Samples are fractions of full scale, -1 up to 1 (a 16-bit sample divided by 32768).
"""

import contextlib
import hashlib
import io
import itertools
import mmap
import os
import re
import tempfile
import types
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import av
import numpy as np
import soxr

# Of names, for who looks for sounds.
ENDINGS = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".spx", ".aiff", ".aif", ".aifc", ".au"),
    *(".snd", ".sph", ".nist", ".m4a", ".m4b", ".aac", ".wv", ".wave", ".bwf", ".rf64", ".mp2"),
)
# Times full scale: mixing and effects exceed it a little; what is far beyond was not divided.
MAX_PEAK = 16

_MPEG = rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd]"
# How files begin, FFmpeg's name of the format, and everyone's.
_FORMATS = (
    (rb"(?:RIFF|RF64|BW64)....WAVE", "wav", "WAV"),
    (rb"fLaC", "flac", "FLAC"),
    (rb"OggS", "ogg", "OGG"),
    (rb"FORM....AIF[FC]", "aiff", "AIFF"),
    (rb"\.snd", "au", "AU"),
    (rb"NIST_1A\n {0,7}(?P<header_bytes>\d{1,8})\n", "nistsphere", "NIST SPHERE"),
    (rb"....ftyp", "mov", "M4A"),
    (rb"wvpk", "wv", "WavPack"),
    (rb"\xff[\xf0\xf1\xf8\xf9]", "aac", "AAC"),
    # Or it begins amid a frame, or behind something else.
    (rb"%b|.{,65536}?(%b).{22,2880}\1.{22,2880}\1" % (_MPEG, _MPEG), "mp3", "MP3"),
)
_CODEC = re.compile(
    r"pcm_[suf](8|16|24|32).*|pcm_f64.*|pcm_[am].*law|adpcm_(ms|ima_wav|ima_qt|yamaha)|mp[123](float)?|"
    r"flac|vorbis|opus|speex|aac|alac|shorten|wavpack|gsm(_ms)?"
)
_CODECS = ",".join(sorted(filter(_CODEC.fullmatch, av.codec.codecs_available)))
# The others are read as from a pipe: of those FFmpeg guesses no length.
_SEEKABLE = ("aiff", "mov", "mp3", "wv")
_ID3 = re.compile(rb"ID3[\2-\4].([\0-\xf0])([\0-\x7f]{4})", re.DOTALL)
# Around an MPEG file, or between such files: the versions 2 and 1 of ID3, APE's, and lyrics.
_TAGS = re.compile(
    rb"%b|APETAGEX....(.{4})....(.{4})\0{8}|TAG.{125}(?=%b|ID3|APETAGEX|\Z)|"
    rb"LYRICSBEGIN.{,65536}?LYRICS(?:200|END)" % (_ID3.pattern, _MPEG),
    re.DOTALL,
)
# After an MPEG frame's header, a checksum and side information; the number of frames to follow.
_XING = re.compile(
    rb"%b.{11,38}?(?:Xing|Info)\0\0\0[\1\3\5\7\x09\x0b\x0d\x0f](.{4})" % _MPEG, re.DOTALL
)
_XING_BYTES = 64  # in which all that lies
_M4A_COUNT = re.compile(rb"(?:stsz.{8}|stz2.{8}|trun.{4})(.{4})", re.DOTALL)

_BLOCK_VALUES = 2**16  # passed on at once, over all channels
_SMALL = 2**20  # bytes of a file that may be in memory
_MAX_SAMPLES = 2**32  # silence compresses well
_MAX_WAV_CHUNKS = 1000
_MAX_WAV_SLACK = 2**17  # bytes that programs take off a placeholder of a length
_WAV_BEHIND = 2**20  # bytes behind the samples that are looked at
_MAX_TAGS = 100
_VORBIS_BLOCK = 2**13  # samples, at most
_M4A_SLACK = 4096  # samples: encoders with losses do not agree on what they count
_MPEG_SLACK = 1  # frames, of each part


class SoundFault(ValueError):
    """What is wrong with the content of a sound file, without its name."""


def versions() -> dict[str, str]:
    """Versions of the libraries on which the samples depend."""
    codecs = ".".join(map(str, av.library_versions["libavcodec"]))
    return {"av": av.__version__, "libavcodec": codecs, "soxr": soxr.__libsoxr_version__}


class _Part(NamedTuple):
    """Where sound lies in a file: of joined Ogg streams each is decoded for itself."""

    start: int
    pieces: tuple[tuple[int, int] | bytes, ...] = ()  # to be copied; else all that follows is read
    num_samples: int = 0  # as an Ogg stream's last page declares; 0: unknown


class Sound:
    """An open sound file: a context manager.

    Attributes:
        sample_rate_hz: of the sound; of Opus, which is decoded to 48 kHz, that of its source.
        num_channels: number of channels.
        is_wide: whether its samples have more than 16 bits, all of them kept.
    """

    def __init__(self, file: BinaryIO):
        """Opens a regular file, which has no buffer.

        Raises:
            SoundFault: it is of no format that is read, damaged, or holds more than one sound.
        """
        self._file = file
        with contextlib.ExitStack() as self._stack, _telling():
            self._format, self._name, start = _recognize(file)
            self._parts = [_Part(start)]
            if self._format == "wav":
                pieces, behind = _check_wav(file, start)
                self._refuse_header(behind)
                self._parts = [_Part(start, pieces)]
            elif self._format == "mp3":
                self._parts = [_Part(start, _without_tags(file, start))]
            elif self._format == "mov":
                _check_m4a(file)
            elif self._format == "ogg":
                self._parts = _ogg_parts(file, start)
            elif start and self._format in _SEEKABLE:
                self._parts = [_Part(start, ((start, os.fstat(file.fileno()).st_size),))]
            self._open(self._parts[0])
            codec = self._stream.codec_context
            self._facts = (codec.sample_rate, codec.layout.nb_channels)
            self._sample_format = ""
            self.sample_rate_hz, self.num_channels = self._facts
            self.is_wide = codec.format.bytes > 2 and not codec.codec.lossy
            if codec.name == "opus" and any(codec.extradata[12:16]):
                self.sample_rate_hz = int.from_bytes(codec.extradata[12:16], "little")
            self._stack = self._stack.pop_all()

    def __enter__(self) -> "Sound":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def mono(self, sample_rate_hz: int = 0) -> Iterator[np.ndarray]:
        """Decodes, once, with channels averaged and resampled by soxr's "HQ".

        Args:
            sample_rate_hz: of the result; 0: that of the sound.

        Yields:
            Blocks [samples] float32.

        Raises:
            SoundFault: what is wrong. Blocks may have come before.
        """
        decoded_hz, wanted_hz = self._facts[0], sample_rate_hz or self.sample_rate_hz
        blocks = (x[:, 0] if x.shape[1] == 1 else x.mean(axis=1) for x in self._blocks())
        if wanted_hz == decoded_hz:
            yield from blocks
            return
        resampler = soxr.ResampleStream(decoded_hz, wanted_hz, 1, dtype="float32", quality="HQ")
        yield from map(resampler.resample_chunk, blocks)
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)

    def _blocks(self) -> Iterator[np.ndarray]:
        """Yields [samples, channels] float32, of all parts."""
        peak = count = 0
        arrays = itertools.chain.from_iterable(map(self._whole, self._parts))
        for block in _batched(arrays, max(1, _BLOCK_VALUES // self.num_channels)):
            values = _fractions(block)
            if not np.isfinite(values).all():
                raise SoundFault("has samples that are no numbers")
            peak, count = max(peak, np.abs(values).max(initial=0)), count + len(values)
            if count > _MAX_SAMPLES:
                raise SoundFault(f"has more than {_MAX_SAMPLES} samples")
            yield values.clip(-MAX_PEAK, MAX_PEAK)
        if peak > MAX_PEAK:
            raise SoundFault(
                f"reaches {peak:g} times full scale; accepted: up to {MAX_PEAK}, where full scale "
                "of floats is 1: divide them, by 32768 if they were of 16 bits"
            )

    def _open(self, part: _Part) -> None:
        self._stack.close()
        file, start = self._file, part.start
        if part.pieces:
            file, start = self._stack.enter_context(_copied(file, part)), 0
        file.seek(start)
        self._head = file.read(_XING_BYTES)
        if os.fstat(file.fileno()).st_size <= _SMALL:
            file.seek(0)
            file = io.BytesIO(file.read())  # which reserves no memory for more than there is
        # FFmpeg calls no Python code: an interrupt in there would be lost.
        source = file if self._format in _SEEKABLE else types.SimpleNamespace(read=file.read)
        file.seek(0 if source is file else start)
        try:
            self._container = self._stack.enter_context(
                av.open(
                    source,
                    format=self._format,
                    buffer_size=2**16,
                    options={"codec_whitelist": _CODECS},
                    metadata_errors="replace",
                    io_open=_open_nothing,
                )
            )
        except (av.FFmpegError, ValueError) as error:
            raise SoundFault(f"is damaged: it cannot be opened as {self._name}") from error
        pictures = av.stream.Disposition.attached_pic
        kinds = [s.type for s in self._container.streams if not s.disposition & pictures]
        if kinds.count("audio") != 1 or "video" in kinds:
            raise SoundFault(
                f"holds {kinds.count('audio')} sounds and {kinds.count('video')} videos; "
                "accepted: 1 sound"
            )
        self._stream = self._container.streams.audio[0]
        codec = self._stream.codec_context
        is_known = codec is not None and _CODEC.fullmatch(codec.name)
        if not (is_known and codec.format and codec.layout.nb_channels and codec.sample_rate):
            raise SoundFault(f"is {self._name} of a coding that is not read")
        if self._format == "mov" and len(self._stream.index_entries):
            last, size = self._stream.index_entries[-1], os.fstat(self._file.fileno()).st_size
            if last.pos + last.size > size:
                raise SoundFault(
                    f"is truncated: its last packet ends at byte {last.pos + last.size} of {size}"
                )
        if codec.name == "vorbis":  # FFmpeg would cut short streams wrongly
            codec.flags2 |= av.codec.context.Flags2.skip_manual
        codec.options = {"err_detect": "crccheck+explode"}

    def _whole(self, part: _Part) -> Iterator[np.ndarray]:
        """Decodes a part to [samples, channels] arrays: no more than is declared, and no less."""
        if part is not self._parts[0]:
            self._open(part)
        stream, codec = self._stream, self._stream.codec_context
        declared, slack, streaminfo = part.num_samples, 0, b""
        if codec.name == "flac":
            streaminfo = codec.extradata
            declared = int.from_bytes(streaminfo[13:18], "big") % 2**36 or declared
        elif declared and codec.name == "opus":
            declared -= int.from_bytes(codec.extradata[10:12], "little")
        elif not declared and self._format not in ("wav", "mp3"):
            declared = int((stream.duration or 0) * (stream.time_base or 0) * codec.sample_rate)
            slack = _M4A_SLACK if self._format == "mov" and codec.codec.lossy else 0
        md5 = hashlib.md5(usedforsecurity=False)
        count, start = 0, None
        frames = self._mpeg_frames() if codec.name.startswith("mp") else self._frames()
        # Vorbis' first frame is but half of one.
        frames = itertools.islice(frames, int(codec.name == "vorbis"), None)
        for frame in _told(frames, declared):
            self._sample_format = self._sample_format or frame.format.name
            facts = (frame.sample_rate, frame.layout.nb_channels, frame.format.name)
            if facts != (*self._facts, self._sample_format):
                raise SoundFault(f"changes its rate or channels after {count} samples")
            if start is None:
                start = frame.pts or 0
                # A stream that was cut from a longer one counts on. (FFmpeg's guess of where
                # Vorbis begins may be a block off.)
                if part.num_samples and start > (_VORBIS_BLOCK if codec.name == "vorbis" else 0):
                    declared -= start
            elif streaminfo and frame.pts is not None and frame.pts - start > count:
                raise SoundFault(f"is damaged after {count} samples")
            values = frame.to_ndarray()
            values = values.T if frame.format.is_planar else values.reshape(-1, self.num_channels)
            count += len(values)
            if streaminfo:
                md5.update(_flac_bytes(values, streaminfo))
            elif declared and count > declared:
                values, behind = np.split(values, [max(0, len(values) + declared - count)])
                if count - len(behind) == declared:  # the first that are too many
                    for samples in (behind, behind.byteswap()):
                        self._refuse_header(samples.tobytes())
            yield values
        is_short = count < declared - slack or not count
        if declared and (is_short or (streaminfo and count > declared)):
            raise SoundFault(f"is damaged: its header declares {declared} samples, it has {count}")
        if any(streaminfo[18:34]) and md5.digest() != streaminfo[18:34]:
            raise SoundFault("is damaged: its samples have another checksum than declared")

    def _refuse_header(self, behind: bytes) -> None:
        """Bytes behind the samples are no fault, unless more samples follow."""
        if any(name == self._format and _begins(p, behind) for p, name, _ in _FORMATS):
            raise SoundFault(f"is several {self._name} files, joined; accepted: one")

    def _frames(self) -> Iterator[av.AudioFrame]:
        for packet in self._container.demux(self._stream):
            yield from self._stream.decode(packet)

    def _mpeg_frames(self) -> Iterator[av.AudioFrame]:
        """As `_frames`, of files that may be joined, with tags between, and cut at both ends."""
        declared, num_frames, slack = _xing_frames(self._head), 0, _MPEG_SLACK
        failed = None
        for packet in self._container.demux(self._stream):
            content = bytes(packet)
            if further := _xing_frames(content[:_XING_BYTES]):
                declared, slack = declared + further, slack + _MPEG_SLACK
                continue
            try:
                frames = self._stream.decode(packet)
            except av.FFmpegError as error:
                failed = error if num_frames else None
                continue
            if content and failed:
                raise failed
            num_frames += bool(content)
            yield from frames
        if num_frames < declared - slack:
            raise SoundFault(
                f"is truncated: its header declares {declared} MPEG frames, it has {num_frames}"
            )


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """What the system says of a file is a fault of it."""
    try:
        yield
    except OSError as error:
        raise SoundFault(f"cannot be read: {error.strerror or error}") from error


def _told(frames: Iterator[av.AudioFrame], declared: int) -> Iterator[av.AudioFrame]:
    """What a decoder says of a frame is a fault of the file."""
    count = 0
    try:
        with _telling():
            for frame in frames:
                count += frame.samples
                yield frame
    except av.FFmpegError as error:
        of = f" of {declared}" if declared else ""
        raise SoundFault(f"is damaged after {count}{of} samples") from error


def _open_nothing(url: str, *_: object) -> None:
    raise OSError("a sound file refers to another one")


def _begins(pattern: bytes, content: bytes) -> re.Match | None:
    return re.match(pattern, content, re.DOTALL)


def _recognize(file: BinaryIO) -> tuple[str, str, int]:
    """FFmpeg's and everyone's name of the format, and where it begins, after tags."""
    start, size = 0, os.fstat(file.fileno()).st_size
    if not size:
        raise SoundFault("is empty")
    for _ in range(_MAX_TAGS):
        file.seek(start)
        head = file.read(2**16 + 2**13)
        if not (tag := _ID3.match(head)):
            break
        start += _id3_bytes(tag)
    for pattern, name, shown in _FORMATS:
        if match := _begins(pattern, head):
            header_bytes = match.groupdict().get("header_bytes")
            if header_bytes and start + int(header_bytes) >= size:
                raise SoundFault("is truncated: it ends before its samples")
            return name, shown, start
    if start:
        return "mp3", "MP3", start
    raise SoundFault(f"is none of {', '.join(shown for _, _, shown in _FORMATS)}")


def _id3_bytes(tag: re.Match) -> int:
    num_bytes = sum(byte << shift for byte, shift in zip(tag[2], (21, 14, 7, 0), strict=True))
    return 10 + num_bytes + (10 if tag[1][0] & 0x10 else 0)  # with a footer


def _xing_frames(content: bytes) -> int:
    match = _XING.match(content)
    return int.from_bytes(match[1], "big") if match else 0


def _without_tags(file: BinaryIO, start: int) -> tuple[tuple[int, int], ...]:
    """The pieces between tags; none where there are no tags."""
    pieces = []
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        size, position = len(content), start
        for tag in _TAGS.finditer(content, start):
            first, stop = tag.span()
            if tag[2]:
                stop = first + _id3_bytes(tag)
            elif tag[3]:
                num_bytes, flags = (int.from_bytes(tag[n], "little") for n in (3, 4))
                if flags >> 29 & 1:  # its head, else its foot
                    stop += num_bytes
                else:
                    first = max(position, stop - num_bytes)
            if first >= position:
                pieces.append((position, first))
                position = min(stop, size)
    return (*(p for p in pieces if p[0] < p[1]), (position, size)) if pieces else ()


def _check_wav(file: BinaryIO, start: int) -> tuple[tuple, bytes]:
    """Looks for the samples; FFmpeg reads what is there, however much is declared.

    Returns:
        The file's pieces, if it is to be changed for FFmpeg; what follows the samples.
    """
    size, position, long_length = os.fstat(file.fileno()).st_size, start + 12, 0
    changes = {}
    file.seek(start)
    form = file.read(4)
    for _ in range(_MAX_WAV_CHUNKS):
        file.seek(position)
        head = file.read(28)
        if len(head) < 8:
            raise SoundFault("is truncated: it ends before its samples")
        length = int.from_bytes(head[4:8], "little")
        position += 8
        if head[:4] == b"ds64":
            long_length = int.from_bytes(head[16:24], "little")
        elif head[:4] == b"fmt " and head[8:10] == b"\xfe\xff" and head[22:24] != head[26:28]:
            # Of 32 bits of which 24 are valid, FFmpeg would read samples of 24 bits.
            changes[position + 18] = head[22:24]
        elif head[:4] == b"data":
            break
        position += length + length % 2
    else:
        raise SoundFault(f"has no samples in its first {_MAX_WAV_CHUNKS} chunks")
    if length == 2**32 - 1 and long_length:
        length, is_open = long_length, False
    elif length:  # who writes to a pipe declares about 2 or 4 GiB, or nothing at all
        is_open = -length % 2**31 < _MAX_WAV_SLACK
    else:
        is_open = position < size and not _begins_chunk(head[8:], size - position)
    if is_open and form in (b"RF64", b"BW64"):
        changes[start] = b"RIFF"  # or FFmpeg would believe in nothing at all
    if length > size - position and not is_open:
        raise SoundFault(
            f"is truncated: its header declares {length} bytes of samples, but {size - position} "
            "are there"
        )
    if not length and not is_open:
        raise SoundFault("has 0 samples")
    file.seek(min(position + length + length % 2, size))
    pieces, position = [], start
    # Other chunks may lie between it and another file.
    behind = re.search(_FORMATS[0][0] + b"|$", file.read(_WAV_BEHIND), re.DOTALL)[0]
    for offset, new in sorted(changes.items()):
        pieces += [(position, offset), new]
        position = offset + len(new)
    return (*pieces, (position, size)) if changes else (), behind


def _begins_chunk(head: bytes, num_bytes: int) -> bool:
    """Whether a chunk of RIFF lies there, which fits into what is left."""
    is_name = head[:4].isascii() and head[:4].decode("latin-1").isprintable()
    return is_name and 8 + int.from_bytes(head[4:8], "little") <= num_bytes


def _check_m4a(file: BinaryIO) -> None:
    """FFmpeg reserves memory for as many packets as are declared."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        counts = (int.from_bytes(match[1], "big") for match in _M4A_COUNT.finditer(content))
        if sum(counts) > len(content):
            raise SoundFault("is damaged: its header declares more packets than it has bytes")


def _ogg_parts(file: BinaryIO, position: int) -> list[_Part]:
    """Ogg streams, one after the other; each must end with a page that is marked as the last."""
    size = os.fstat(file.fileno()).st_size
    parts: list[_Part] = []
    going_on: set[bytes] = set()  # of those that lie side by side
    start = num_samples = 0
    while (position := _find(file, b"OggS", position)) >= 0:
        file.seek(position)
        head = file.read(27)
        if len(head) < 27:
            break
        if head[5] & 2:  # the first page of a stream
            if not going_on:
                start, num_samples = position, 0
            going_on.add(head[14:18])
        num_samples = max(num_samples, int.from_bytes(head[6:14], "little", signed=True))
        lengths = file.read(head[26])
        position += 27 + head[26] + sum(lengths)
        if position > size:
            break
        if head[5] & 4:  # the last one
            going_on.discard(head[14:18])
            if not going_on:
                parts.append(_Part(start, ((start, position),), num_samples))
    if going_on or not parts:
        raise SoundFault("is truncated: it does not end with a last page")
    # A single one need not be copied.
    return parts if len(parts) > 1 else [parts[0]._replace(pieces=())]


def _find(file: BinaryIO, what: bytes, start: int) -> int:
    """Where something is, from `start` on; else -1."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(what, start)


def _copied(file: BinaryIO, part: _Part) -> BinaryIO:
    """A part as a file of its own."""
    copy = tempfile.TemporaryFile(buffering=0)
    for piece in part.pieces:
        if isinstance(piece, bytes):
            copy.write(piece)
            continue
        file.seek(piece[0])
        while content := file.read(min(piece[1] - file.tell(), 2**20)):
            copy.write(content)
    return copy


def _batched(arrays: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Joins short arrays to such of at least `size` rows, but for the last."""
    pending, count = [], 0
    for array in arrays:
        pending.append(array)
        count += len(array)
        if count >= size:
            yield np.concatenate(pending)
            pending, count = [], 0
    if pending:
        yield np.concatenate(pending)


def _fractions(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32)
    scale = np.float32(2 ** (8 * samples.itemsize - 1))
    values = samples.astype(np.float32)
    return (values - scale if samples.dtype.kind == "u" else values) / scale


def _flac_bytes(samples: np.ndarray, streaminfo: bytes) -> bytes:
    """Samples as their checksum is made of: little-endian, of whole bytes."""
    bits = (streaminfo[12] % 2 << 4 | streaminfo[13] >> 4) + 1
    values = samples.ravel().astype("<i4") >> (8 * samples.itemsize - bits)
    return values.view(np.uint8).reshape(-1, 4)[:, : (bits + 7) // 8].tobytes()
