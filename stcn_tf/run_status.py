"""How far a run is: status.json in its directory, which a trainer keeps up to date.

Nothing of a run depends on it: where it is lost, or a killed trainer could not write its last, the
checkpoints say where the run goes on. Nothing here needs TensorFlow.
"""

import dataclasses
import json
from pathlib import Path

from stcn_tf.settings import Settings, setting
from stcn_tf.support import strict_json
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import replacing_file

STATUS_NAME = "status.json"
TRAINING, STOPPED, EARLY, FINISHED, FAILED = (
    "training",  # or killed
    "stopped",
    "stopped early",
    "finished",
    "failed",
)


@dataclasses.dataclass(frozen=True)
class RunStatus(Settings):
    """How far a run is."""

    state: str = setting(choices=(TRAINING, STOPPED, EARLY, FINISHED, FAILED))
    update: int = setting(0, "the last one that is known of", least=0)
    last_update: int = setting(0, "at which the run ends at the latest", least=0)
    best: float | None = setting(None, "on the validation split, nats/sequence", kind=float)
    best_update: int = setting(0, "after which that was", least=0)
    best_of: str = setting("", "what that is a value of, with its scale, as in ELBO (raw)")
    num_parameters: int = setting(0, "of the model", least=0)
    line: str = setting("", "the last of the progress; failed: why")
    written: str = setting("", "when this was")
    processor_hours: float | None = setting(
        None,
        "of all trainers of the run (worker 0) until `written`, what was lost with them included; "
        "None: of some they are not known",
        kind=float,
    )
    seconds_per_update: float | None = setting(
        None,
        "of the updates of this trainer's fastest line about some, evaluation left out",
        kind=float,
    )
    processor_seconds_per_update: float | None = setting(
        None, "of the same; of all threads of the trainer (worker 0)", kind=float
    )

    def write(self, folder: Path) -> None:
        """Writes it into a run directory."""
        with replacing_file(folder / STATUS_NAME) as partial:
            text = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
            partial.write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "RunStatus | None":
        """Reads that of a run directory; None: it has none, as those of earlier versions.

        Raises:
            UserError: it cannot be read, or is not as `write` writes it.
        """
        file = folder / STATUS_NAME
        try:
            raw = strict_json.parse(strict_json.read_text(file, str(file)), str(file))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}") from error
        if not isinstance(raw, dict):
            raise UserError(f"{file}: accepted: an object")
        try:
            # What a later version adds is left out.
            return cls(**{name: value for name, value in raw.items() if name in cls.names()})
        except (TypeError, UserError) as error:
            raise UserError(f"{file}: {error}") from error
