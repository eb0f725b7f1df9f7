"""The one exception that means "the user can mend this", and what others say, in short."""

import re


class UserError(ValueError):
    """A mistake in flags, files or data, told in one line: what, where, and what is accepted.

    Commands print the message without a traceback and exit with code 2 (`stcn_tf.support.cli`).
    """


def reason_of(error: BaseException) -> str:
    """The first line of what an exception says, without TensorFlow's names of operations."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Of an error in a graph it first says where the graph was made, in indented lines.
    said = re.sub(r"^Graph execution error:\s+(Detected at .*\n|[ \t]+.*\n|\n)*", "", str(error))
    first = (said.splitlines() or [type(error).__name__])[0]
    return re.sub(r"{{.*?}}|\[Op:.*", "", first).strip()
