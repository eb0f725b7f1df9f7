"""ZIP archives from elsewhere, of which a few bytes can stand for gigabytes."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

from data_prep.common.raw_files import MAX_FILE_BYTES, FileFault

# Other kinds of compression would be unpacked without a limit.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_zip(
    data: bytes,
    choose: Callable[[list[str]], list[str]],
    what: str = "array",
    kind: str = ".npz",
    max_bytes: int = MAX_FILE_BYTES,
) -> Iterator[tuple[str, bytes]]:
    """Yields name and content of those members that `choose` takes of the names of all.

    Together they have at most `max_bytes`. `what` a member is, and the `kind` of file, are for
    messages.

    Raises:
        FileFault: it is no archive, is damaged, or not as wanted; or `choose` raises it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            for name in members:
                if not name.isprintable() or len(name) > 200:
                    raise FileFault(f"holds the name {name[:40]!r}")
            if len(members) < len(archive.infolist()):
                raise FileFault(f"holds two {what}s of one name")
            names = choose(list(members))
            for name in names:
                if members[name].compress_type not in _COMPRESSIONS:
                    raise FileFault(f"{what} {name!r}: its kind of compression is not that of ZIP")
            size = sum(members[name].file_size for name in names)
            if size > max_bytes:
                raise FileFault(f"its {what}s have {size} bytes, at most {max_bytes} are accepted")
            for name in names:
                with archive.open(members[name]) as member:
                    yield name, member.read(members[name].file_size + 1)
    except FileFault:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,  # impossible offsets
        RuntimeError,  # encryption, of whatever strength
        ValueError,
        struct.error,
    ) as error:
        raise FileFault(f"not a readable {kind} file ({in_short(error)})") from error


def in_short(error: Exception) -> str:
    """What an exception says, which may quote the file at any length."""
    text = " ".join(str(error).split())[:200]
    return text.encode("unicode_escape").decode() if not text.isprintable() else text
