"""The paper's numbers and its peers' own: experiments/paper/tables.json, which says what they are.

Nothing here needs TensorFlow.
"""

import dataclasses
import functools
import json
from typing import Any

from stcn_tf.models.settings import ModelSettings
from stcn_tf.support import flagfiles
from stcn_tf.support.errors import UserError

FILE = "experiments/paper/tables.json"
EXACT, LOWER, UPPER, ESTIMATE = "exact", ">=", "<=", "~"
_LARGE_FILTERS = 512  # of STCN-dense-large


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Which records the paper scored, where that is known."""

    name: str
    split: str
    num_sequences: int
    num_steps: int | None
    num_features: int
    normalization: str  # `Normalization.kind`
    facts: dict[str, str]  # of `DatasetCard.extra`
    sequence: str  # what one is
    note: str = ""

    @property
    def is_negative(self) -> bool:
        """Whether the paper gives negative log-likelihoods."""
        return "binarization" in self.facts


@dataclasses.dataclass(frozen=True)
class Published:
    """A published number; the file says what each field means."""

    dataset: str
    model: str
    observation: str
    value: float | None  # None: there is none of this model
    kind: str | None
    tables: tuple[int, ...] = ()
    first_frame: str = ""
    piece: int = 0
    is_bound: bool = True
    kl: float | None = None
    kl_of_layers: tuple[float, ...] = ()
    num_features: int | None = None  # of a step, where others than the data set's
    name: str = ""  # of the model, where its authors have another
    source: str = ""  # of a peer's own
    is_recalled: bool = False
    quoted: str = ""
    note: str = ""
    cited: str = ""
    incomparable: str = ""
    flagfile: str = ""
    parameters: int | None = None
    parameters_as_released: int | None = None
    parameters_of_authors: int | None = None

    @property
    def number(self) -> str:
        """As it is printed, "" where there is none."""
        if self.value is None:
            return ""
        decimals = 1 if self.kl_of_layers else 2 if self.dataset == "mnist" else 0
        sign = "" if self.kind == EXACT else f"{self.kind} "
        return f"{sign}{self.value:.{decimals}f}"

    @property
    def with_all_kl(self) -> float | None:
        """A valid bound in the place of one that is none: KLs above the lowest layer count twice.

        None: the number is a bound, or no KLs were published.
        """
        if self.is_bound or not self.kl_of_layers:
            return None
        above = sum(self.kl_of_layers[1:])
        return self.value + (above if self.kind == UPPER else -above)

    def is_of(self, dataset: str, model: ModelSettings, num_features: int) -> bool:
        """Whether this is the number of a model, of whatever size, on a data set."""
        given = (dataset, *_kind_of(dataset, model))
        own = self.num_features or tables().datasets[self.dataset].num_features
        return given == (self.dataset, self.model, self.observation) and num_features == own


@dataclasses.dataclass(frozen=True)
class Tables:
    """All that the file holds. `models` and `observations` are names."""

    datasets: dict[str, Dataset]
    models: dict[str, str]
    observations: dict[str, str]
    numbers: tuple[Published, ...]  # of Tables 1, 2 and 4
    table3: tuple[Published, ...]
    peers: tuple[Published, ...]  # what they published themselves

    def title(self, number: Published) -> str:
        """The model of a number with its observation, as in STCN (GMM)."""
        name = number.name or self.models[number.model]
        return f"{name} ({self.observations[number.observation]})"


@functools.cache
def tables() -> Tables:
    """Reads the file.

    Raises:
        UserError: it is not installed.
    """
    folder = flagfiles.installed()
    if folder is None or not (folder / FILE).is_file():
        raise UserError(f"{FILE}: not installed with stcn_tf; accepted: a checkout or its wheel")
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return Tables(
        {name: Dataset(**facts) for name, facts in content["datasets"].items()},
        content["models"],
        content["observations"],
        *(tuple(map(_published, content[key])) for key in ("numbers", "table3", "peers")),
    )


def _published(fields: dict[str, Any]) -> Published:
    return Published(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})


def _kind_of(dataset: str, model: ModelSettings) -> tuple[str, str]:
    """Model and observation as the tables name them, which do not tell correlated ones apart."""
    name, observation = model.model, model.observation
    is_speech = dataset in ("timit", "blizzard")
    if name == "stcn_dense" and is_speech and model.num_filters >= _LARGE_FILTERS:
        name = "stcn_dense_large"
    if dataset == "mnist":
        return name, ""
    if observation.startswith("bivariate"):
        return name, "gmm" if observation.endswith("gmm") else "normal"
    if observation != "gmm" and model.num_components == 1:
        observation = observation.replace("_gmm", "_normal")
    return name, observation
