"""The rows of a table: which there are, and the commands that make the numbers of each."""

import dataclasses
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from stcn_tf import checkpoint_files
from stcn_tf.data.card import DatasetCard
from stcn_tf.reporting import published
from stcn_tf.reporting.evaluated import Evaluated
from stcn_tf.reproduction.plan import REHEARSED, REHEARSED_LINE, Plan
from stcn_tf.reproduction.pool import Command, Job
from stcn_tf.run_status import EARLY, FINISHED, RunStatus
from stcn_tf.runs import RunDirectory
from stcn_tf.support import flagfiles
from stcn_tf.support.errors import UserError

_FOLDER = "experiments/small"


class Questions(NamedTuple):
    """What is asked of a trained model."""

    split: str
    num_samples: int  # K of the importance-weighted bound
    limit: int  # on so many sequences; 0: on all
    num: int  # of samples that are drawn


@dataclasses.dataclass(frozen=True)
class Row:
    """A model of a table. Its name is that of its run."""

    name: str
    flagfile: Path
    seed: int
    out: Path

    @property
    def model(self) -> str:
        """What it trains: with another seed another row, of the same schedule."""
        return self.flagfile.stem

    @property
    def run_dir(self) -> Path:
        """Of its run."""
        return self.out / "runs" / self.name

    def rehearsal(self, data: str, plan: Plan) -> Job:
        """Makes some updates, and plans by them."""
        run_dir = self.out / "rehearsals" / self.name
        own = (
            *(f"--max_steps={REHEARSED}", f"--log_every={REHEARSED_LINE}"),
            *("--evaluate_sequences=2", "--restart"),
        )
        yield self._training(f"{REHEARSED} updates", data, run_dir, own)
        plan.add(self.model, RunStatus.read(run_dir))
        shutil.rmtree(run_dir)

    def reproduction(self, data: str, plan: Plan, asked: Questions) -> Job:
        """Trains, evaluates and draws samples, but for what is done already."""
        schedule = plan.schedules[self.model]
        status = RunStatus.read(self.run_dir) if self.run_dir.exists() else None
        if status is None or status.state not in (FINISHED, EARLY):
            done = f"from {status.update:,} to " if status else ""
            about = f"training, {done}{schedule.updates:,} updates"
            yield self._training(about, data, self.run_dir, schedule.flags)
        question = [f"--data={data}", f"--split={asked.split}"]
        if not self._evaluations(asked.split, "elbo", 0):
            yield self._command(f"evaluation on {asked.split}", "evaluate", question)
        found = self._evaluations(asked.split, "elbo", 0)
        # Of exact log-likelihoods there is no tighter bound.
        is_bound = not found or any("log_likelihood" not in each["terms"] for each in found)
        tight = self._evaluations(asked.split, "iwae", asked.limit)
        if is_bound and not any(each["num_samples"] == asked.num_samples for each in tight):
            question += [f"--num_samples={asked.num_samples}", f"--limit={asked.limit}"]
            about = f"importance-weighted bound of {asked.num_samples} draws"
            yield self._command(about, "evaluate", [*question, "--bound=iwae"])
        samples = self.out / "samples" / self.name
        if asked.num and not (samples / "samples.h5").exists():
            own = [f"--out={samples}", f"--num={asked.num}"]
            yield self._command("samples", "sample", own)

    def _training(self, about: str, data: str, run_dir: Path, own: Iterable[str]) -> Command:
        arguments = [f"--flagfile={self.flagfile}", f"--data={data}", f"--seed={self.seed}", *own]
        return self._command(about, "train", arguments, run_dir)

    def _command(
        self, about: str, module: str, arguments: list[str], run_dir: Path | None = None
    ) -> Command:
        log = self.out / "logs" / f"{self.name}.log"
        arguments = [f"--run_dir={run_dir or self.run_dir}", *arguments]
        return Command(about, f"stcn_tf.{module}", arguments, log)

    def _evaluations(self, split: str, bound: str, limit: int) -> list[Evaluated]:
        """Those of the best weights as they are, on the first sequences; 0: on all."""
        run = RunDirectory.open(self.run_dir)
        card, best = run.card, checkpoint_files.in_folder(run.best)
        total = card.splits[split].num_sequences
        wanted = {
            **{"split": split, "bound": bound, "num_sequences": min(limit or total, total)},
            "update": checkpoint_files.update_of(best[0]) if best else None,
            "checkpoint": "best",
            **{"given_frames": 0, "piece": 0, "trained_with": {}},
            "source_sha256": card.source_sha256,
        }
        files = sorted((self.run_dir / "evaluations").glob("*.json"))
        return [
            each
            for each in map(Evaluated.read, files)
            if {name: each[name] for name in wanted} == wanted
        ]


def find(
    folder: str | None,
    card: DatasetCard,
    names: Sequence[str],
    out: str | os.PathLike,
    seeds: Iterable[int],
) -> list[Row]:
    """The rows of a table for some records.

    Args:
        folder: of flagfiles, one for each row; None: this project's for records of the kind.
        card: of the records.
        names: of rows, in the order in which they are trained; empty: all.
        out: the folder of the reproduction.
        seeds: each row is trained with each.

    Raises:
        UserError: there are none of the kind, or of these names.
    """
    if folder is None:
        own, kind = flagfiles.installed(), card.modality.kind
        folder = own / _FOLDER / kind if own else Path(_FOLDER, kind)
        if not folder.is_dir():
            raise UserError(
                f"{card.name}: there are no small tables of records of the kind {kind!r}; "
                "accepted: a folder of your own flagfiles, --flagfiles=FOLDER"
            )
    files = {file.stem: file for file in sorted(Path(folder).glob("*.flags"))}
    if not files:
        raise UserError(f"--flagfiles={folder}: accepted: a folder of flagfiles, ROW.flags")
    for name in names:
        if name not in files:
            raise UserError(f"--rows={name}: accepted: {', '.join(files)}")
    return [
        Row(f"{name}_seed{seed}" if seed else name, files[name], seed, Path(out))
        for seed in dict.fromkeys(seeds)
        for name in dict.fromkeys(names or files)
    ]


def split_of(card: DatasetCard) -> str:
    """The split that the paper scores of these records, or the last one for that purpose."""
    dataset = published.tables().datasets.get(card.name)
    splits = ([dataset.split] if dataset else []) + ["test", "valid"]
    return next((split for split in splits if split in card.splits), "valid")
