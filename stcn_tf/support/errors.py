"""The one exception that means "the user can mend this", and what others say, in short."""

import os
import re

_LONGEST = 2000  # characters of a message


class UserError(ValueError):
    """A mistake in flags, files or data, told in one line: what, where, and what is accepted.

    Commands print the message without a traceback and exit with code 2 (`stcn_tf.support.cli`).
    """


def one_line(message: str) -> str:
    """A message as one line: short, and without anything that a terminal obeys.

    Parts of it may come from files, of any size and content.
    """
    text = " ".join(message.split())
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason_of(error: BaseException) -> str:
    """The first line of what an exception says, without names of operations and written files."""
    # HDF5 tells the system's reason within a text of several lines.
    if number := re.search(r"\berrno = (\d{1,4})\b", str(error)):
        return os.strerror(int(number[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Of an error in a graph it first says where the graph was made, in indented lines.
    said = re.sub(r"^Graph execution error:\s+(Detected at .*\n|[ \t]+.*\n|\n)*", "", str(error))
    first = (said.splitlines() or [type(error).__name__])[0]
    first = re.sub(r"{{.*?}}|\[Op:.*", "", first).strip()
    return re.sub(r"^.*/.*; (?=[A-Z])", "", first)  # TensorFlow: "PATH; No space left on device"
