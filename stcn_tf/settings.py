"""How settings are declared: one dataclass field = one flag = one JSON entry = one help text.

A settings class says of each field its default, its text and what it accepts; the base class here
checks that when an instance is made. Checks that take several fields are in `_check`.
"""

import dataclasses
import difflib
import math
from collections.abc import Collection
from typing import Any

from stcn_tf.support.errors import UserError


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    choices: tuple[str, ...] = (),
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    nonempty: bool = False,
    kind: type | None = None,
) -> Any:
    """A field of a settings class.

    Args:
        default: its default, whose type (bool, int, float, str, or a tuple of whole numbers) is the
            only one accepted; left out: the field is a string that must be given.
        help: what the setting is, for `--help`.
        choices: of a string, all that is accepted.
        least: of a number, or of each number in a tuple, the smallest that is accepted.
        most: the largest.
        above: a number that every accepted one exceeds.
        nonempty: of a tuple, whether it must have a number in it.
        kind: the type of a setting whose default is None, which stands for a choice that is made
            when the value is needed.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "least": least,
        "most": most,
        "above": above,
        "nonempty": nonempty,
        "kind": kind or (str if default is dataclasses.MISSING else type(default)),
    }
    return dataclasses.field(default=default, metadata=metadata)


# Of every whole number, and of numbers in a tuple.
_MOST_WHOLE, _MOST_NUMBERS = 2**31 - 1, 1000


class Settings:
    """Base of the settings classes, which are frozen dataclasses of `setting` fields.

    Raises:
        UserError: "NAME: VALUE; accepted: ...", for a value of another type, that is none of the
            choices, or out of range.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _as_declared(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            accepted = _accepted(field, value) or _largest(value)
            if accepted:
                raise UserError(f"{field.name}: {value!r}; accepted: {accepted}")
        self._check()

    def _check(self) -> None:
        """Raises UserError for values that the fields by themselves do not exclude."""

    def _require(self, name: str, holds: bool, accepted: str) -> None:
        if not holds:
            raise UserError(f"{name}: {getattr(self, name)!r}; accepted: {accepted}")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the settings."""
        return tuple(field.name for field in dataclasses.fields(cls))


def nearest(name: str, names: Collection[str]) -> str:
    """The name that is most like another: the most words in common, then the most letters.

    Returns:
        That name; "" where none has a word or half of its letters in common.
    """
    words = set(name.split("_"))

    def likeness(other: str) -> tuple[int, float]:
        ratio = difflib.SequenceMatcher(None, name, other).ratio()
        return len(words & set(other.split("_"))), ratio

    best = max(names, key=likeness)
    return best if max(likeness(best)) >= 0.5 else ""


def _as_declared(field: dataclasses.Field, value: Any) -> Any:
    """The value in the type of the field: lists as tuples, whole numbers as floats."""
    kind = field.metadata["kind"]
    if value is None and field.default is None:
        return None
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value) if abs(value) <= _MOST_WHOLE else math.inf
    if type(value) is not kind:
        accepted = f"{kind.__name__} or null" if field.default is None else kind.__name__
        raise UserError(
            f"{field.name}: {value!r} of type {type(value).__name__}; accepted: {accepted}"
        )
    return value


def _accepted(field: dataclasses.Field, value: Any) -> str:
    """What the field accepts, if that is not the value; else nothing."""
    rules = field.metadata
    if isinstance(value, str):
        is_good = not rules["choices"] or value in rules["choices"]
        return "" if is_good else ", ".join(rules["choices"])
    if isinstance(value, tuple):
        if len(value) > _MOST_NUMBERS:
            return f"{_MOST_NUMBERS} numbers at most"
        is_good = all(type(item) is int and _is_in_range(rules, item) for item in value)
        if is_good and (value or not rules["nonempty"]):
            return ""
        numbers = f"whole numbers, each {_range(rules)}" if _range(rules) else "whole numbers"
        return f"one or more {numbers}" if rules["nonempty"] else f"{numbers}, or none"
    if isinstance(value, float) and not math.isfinite(value):
        return "finite numbers"
    is_good = value is None or isinstance(value, bool) or _is_in_range(rules, value)
    return "" if is_good else _range(rules)


def _largest(value: Any) -> str:
    """The same of whole numbers that would be none of TensorFlow's."""
    numbers = value if isinstance(value, tuple) else (value,)
    is_good = all(type(item) is not int or abs(item) <= _MOST_WHOLE for item in numbers)
    return "" if is_good else f"whole numbers up to {_MOST_WHOLE}"


def _is_in_range(rules: Any, value: float) -> bool:
    return (
        (rules["least"] is None or value >= rules["least"])
        and (rules["most"] is None or value <= rules["most"])
        and (rules["above"] is None or value > rules["above"])
    )


def _range(rules: Any) -> str:
    least, most, above = rules["least"], rules["most"], rules["above"]
    if above is not None:
        return f"more than {above}" + (f", {most} at most" if most is not None else "")
    if most is not None:
        return f"{least} to {most}"
    return f"{least} or more" if least is not None else ""
