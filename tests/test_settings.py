import dataclasses

import pytest

from stcn_tf.settings import Settings, nearest, setting
from stcn_tf.support.errors import UserError


@dataclasses.dataclass(frozen=True)
class Base(Settings):
    name: str = setting()
    colour: str = setting("red", "A colour.", ("red", "blue"))


@dataclasses.dataclass(frozen=True)
class Some(Base):
    count: int = setting(3, "A count.", least=2)
    day: int = setting(1, "A day.", least=1, most=31)
    rate: float = setting(0.5, "A rate.", above=0, most=1)
    speed: float = setting(7.0, "A speed.", above=0)
    any_number: float = setting(-1.0, "A number.")
    is_on: bool = setting(False, "A switch.")
    sizes: tuple[int, ...] = setting((4, 2), "Sizes.", least=1, nonempty=True)
    steps: tuple[int, ...] = setting((), "Steps.", least=2)
    shifts: tuple[int, ...] = setting((), "Shifts.")

    def _check(self) -> None:
        self._require("count", self.count < 9 or self.is_on, "less than 9 (--nois_on)")


def test_accepted_values():
    some = Some(
        "a", colour="blue", count=8, day=31, rate=1, sizes=[5], steps=[2, 2], shifts=(-3, 0)
    )
    assert (some.sizes, some.steps, some.shifts) == ((5,), (2, 2), (-3, 0))
    assert type(some.rate) is float
    assert Some("a", count=9, is_on=True).count == 9
    assert hash(some) != hash(Some("a"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        some.count = 3


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("name", 3, "3 of type int; accepted: str"),
        ("colour", "", "''; accepted: red, blue"),
        ("count", 1, "1; accepted: 2 or more"),
        ("count", 3.0, "3.0 of type float; accepted: int"),
        ("count", True, "True of type bool; accepted: int"),
        ("count", None, "None of type NoneType; accepted: int"),
        ("count", 9, "9; accepted: less than 9 (--nois_on)"),
        ("day", 32, "32; accepted: 1 to 31"),
        ("rate", 0, "0.0; accepted: more than 0, 1 at most"),
        ("rate", 1.1, "1.1; accepted: more than 0, 1 at most"),
        ("speed", -2, "-2.0; accepted: more than 0"),
        ("speed", float("inf"), "inf; accepted: finite numbers"),
        ("any_number", float("nan"), "nan; accepted: finite numbers"),
        ("any_number", "1", "'1' of type str; accepted: float"),
        ("is_on", 1, "1 of type int; accepted: bool"),
        ("sizes", (), "(); accepted: one or more whole numbers, each 1 or more"),
        ("sizes", (4, 0), "(4, 0); accepted: one or more whole numbers, each 1 or more"),
        ("sizes", (4, 2.0), "(4, 2.0); accepted: one or more whole numbers, each 1 or more"),
        ("sizes", (4, True), "(4, True); accepted: one or more whole numbers, each 1 or more"),
        ("sizes", "4,2", "'4,2' of type str; accepted: tuple"),
        ("steps", (1,), "(1,); accepted: whole numbers, each 2 or more, or none"),
        ("shifts", ("1",), "('1',); accepted: whole numbers, or none"),
    ],
)
def test_the_message_names_setting_value_and_what_is_accepted(name, value, message):
    with pytest.raises(UserError) as error:
        Some(**{"name": "a", name: value})
    assert str(error.value) == f"{name}: {message}"


def test_names():
    assert Base.names() == ("name", "colour")
    assert Some("a").names()[:3] == ("name", "colour", "count")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wavenet_blocks", "blocks_per_layer"),  # a word in common
        ("num_filter", "num_filters"),
        ("latent_size", "latent_sizes"),
        ("kernelsize", "kernel_size"),
        ("zzz", ""),
    ],
)
def test_the_nearest_name(name, expected):
    names = ("num_components", "num_filters", "kernel_size", "blocks_per_layer", "latent_sizes")
    assert nearest(name, names) == expected
