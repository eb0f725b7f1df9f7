"""A long run that is killed again and again, beside the same run left alone.

python tests/training/soak.py --settings=experiments/iamondb_cpu.flags --data=RECORDS --out=DIR \
    --max_steps=40000 --minutes=4

Both train on one processor each, with the same flags. The one is ended every few minutes, at
random moments, by SIGKILL, SIGTERM, SIGINT or SIGHUP, and started again by the same command. At the
end the weights of both must be equal in every bit. DIR/memory.csv has the resident memory of both
over time, DIR/memory.png the curves, DIR/ends.csv when it was ended how, DIR/soak.json what was
found. Called again, it goes on.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from stcn_tf.support import cli

_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_EVERY = 10.0  # seconds between looks at the memory


class Run:
    """One of the two runs, on a processor of its own."""

    def __init__(self, out: Path, name: str, processor: int, arguments: list[str]):
        self.name, self.path = name, out / name
        self._log = out / f"{name}.log"
        self._processor = processor
        self._command = [sys.executable, "-m", "stcn_tf.train", *arguments]
        self._command.append(f"--run_dir={self.path}")
        self.process: subprocess.Popen | None = None
        self.starts, self.ended, self.failed = 0, False, False

    def start(self) -> None:
        """Starts it, or goes on with it."""

        def prepare():
            os.sched_setaffinity(0, {self._processor})
            signal.signal(signal.SIGINT, signal.default_int_handler)

        environment = dict.fromkeys(
            ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"
        )
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                preexec_fn=prepare,
                start_new_session=True,
            )
        self.starts += 1

    def look(self) -> int | None:
        """Resident bytes, if it runs; starts it again where it was ended on purpose."""
        code = self.process.poll()
        if code is None:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        if code == 0:
            self.ended = True
        elif code == cli.INTERRUPTED or -code in _SIGNALS:  # also before it could save
            self.start()
        else:
            self.failed = True
        return None


def main() -> int:
    """Runs both to their end."""
    args = flags.FLAGS
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    given = [f"--flagfile={args.settings}", f"--data={args.data}", f"--max_steps={args.max_steps}"]
    alone, killed = (Run(out, name, n, given) for n, name in enumerate(("alone", "killed")))
    rng = random.Random(args.seed)
    memory, ends = out / "memory.csv", out / "ends.csv"
    start = time.monotonic() - max([float(row[1]) for row in _rows(memory)], default=0.0)
    for run in (alone, killed):
        run.start()
    due = time.monotonic() + rng.expovariate(1.0 / (60.0 * args.minutes))
    with memory.open("a", newline="") as file, ends.open("a", newline="") as ends_file:
        writer = csv.writer(file)
        while not (alone.ended and killed.ended) and not (alone.failed or killed.failed):
            time.sleep(min(_EVERY, max(due - time.monotonic(), 0.1)))
            now = time.monotonic()
            for run in (alone, killed):
                if not run.ended and (resident := run.look()) is not None:
                    writer.writerow([run.name, round(now - start), run.starts, resident])
            file.flush()
            if now >= due:
                due = now + rng.expovariate(1.0 / (60.0 * args.minutes))
                if not killed.ended and killed.process.poll() is None:
                    number = rng.choice(_SIGNALS)
                    killed.process.send_signal(number)
                    csv.writer(ends_file).writerow([number.name, round(now - start)])
                    ends_file.flush()
    report = {"seconds": round(time.monotonic() - start), "ends": len(_rows(ends))}
    report["equal"] = not (alone.failed or killed.failed) and _are_equal(alone, killed)
    (out / "soak.json").write_text(json.dumps(report, indent=1) + "\n")
    _draw(memory)
    print(f"{report['ends']} times ended, {report['seconds']} s; equal: {report['equal']}")
    return 0 if report["equal"] else 1


def _are_equal(*runs: Run) -> bool:
    """Whether the last states of two runs hold the same, but for positions in files."""
    import numpy as np

    from stcn_tf.runs import load_run

    one, other = ([w.numpy() for w in load_run(run.path, "latest").weights] for run in runs)
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _draw(memory: Path) -> None:
    import matplotlib.pyplot as plt

    rows = _rows(memory)
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    for name in ("alone", "killed"):
        points = [(int(row[1]) / 3600, int(row[3]) / 2**30) for row in rows if row[0] == name]
        axes.plot(*zip(*points, strict=True), ".", markersize=1.5, label=name)
    axes.set(xlabel="hours", ylabel="resident memory, GiB", ylim=(0, None))
    axes.legend()
    figure.savefig(memory.with_suffix(".png"), dpi=120)


def define() -> None:
    """Its flags."""
    flags.DEFINE_string("settings", None, "flagfile of the run", required=True)
    flags.DEFINE_string("data", None, "folder of records", required=True)
    flags.DEFINE_string("out", None, "folder for both runs and what is found", required=True)
    flags.DEFINE_integer("max_steps", 40000, "updates of either", lower_bound=1)
    flags.DEFINE_float("minutes", 4.0, "between two ends, on average", lower_bound=0.01)
    flags.DEFINE_integer("seed", 0, "of the moments and signals")


if __name__ == "__main__":
    cli.run(main, define)
