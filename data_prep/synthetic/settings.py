"""Settings of synthetic data: dataclasses whose fields are the flags of `data_prep.synthetic`."""

import dataclasses
from typing import Any

from stcn_tf.support.errors import UserError


def integer(default: int, low: int, high: int, description: str) -> Any:
    """Declares a setting: a field of a subclass of `Settings`.

    Args:
        default: its default.
        low: the least value accepted.
        high: the greatest value accepted.
        description: what `--help` says of it.
    """
    metadata = {"low": low, "high": high, "description": description}
    return dataclasses.field(default=default, metadata=metadata)


def seed() -> Any:
    """Declares the setting that every format has."""
    return integer(0, 0, 2**63 - 1, "Random seed.")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of all settings.

    Raises:
        UserError: a value is out of its range.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            low, high = field.metadata["low"], field.metadata["high"]
            if not low <= value <= high:
                raise UserError(f"--{field.name}={value}: accepted are {low} to {high}")
