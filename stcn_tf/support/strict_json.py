"""JSON of files that come from elsewhere: plain data of bounded size, or one line why not.

Python's reader takes more than JSON is (NaN, infinities, the last of several equal names), and does
not catch all that a malicious file makes it raise.
"""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from stcn_tf.support.errors import UserError

_MAX_BYTES = 2**26
# Of lists and objects in each other: more than any of our files have, fewer than Python can copy.
_MAX_DEPTH = 50


def read_text(path: Path, where: str) -> str:
    """The text of a file.

    Args:
        path: the file.
        where: what to call it in errors.

    Raises:
        UserError: it is too large, or no UTF-8.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise UserError(f"{where}: too large; accepted: {_MAX_BYTES // 2**20} MiB at most")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text") from error


def parse(text: str, where: str) -> Any:
    """What a text says: None, booleans, finite numbers, texts, lists and dicts of these.

    Args:
        text: the JSON text.
        where: what to call it in errors.

    Raises:
        UserError: it is no JSON, names something twice, is too deep, or has a number that is none.
    """
    try:
        value = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_object
        )
        deepest = _depth(value)
    except RecursionError:
        deepest = math.inf
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    if deepest > _MAX_DEPTH:
        raise UserError(f"{where}: nested too deeply; accepted: {_MAX_DEPTH} levels")
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:20]} is no finite number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice[:40]!r} is there twice")
    return content


def _depth(value: Any) -> int:
    """How many lists and objects are in each other at most."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, list | dict)]:
        depth += 1
        level = [v for c in level for v in (c.values() if isinstance(c, dict) else c)]
    return depth
