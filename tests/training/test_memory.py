"""Memory of a long training, with evaluations, pictures and checkpoints, is a flat curve."""

import ctypes
import gc
import os
from pathlib import Path

import numpy as np
import pytest

from stcn_tf.training.trainer import Trainer

UPDATES, EVERY = 360, 10


def resident_mib() -> float:
    """What the process holds, without what its allocator keeps of what was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the allocator cannot be asked"
)
def test_the_curve_is_flat(tmp_path, tiny_records, tiny_config_with):
    curve = []

    def report(line):
        if "  validation: " in line:
            curve.append(resident_mib())

    config = tiny_config_with(
        training={"patience": 0, "learning_rate": 1e-4},
        run={
            "max_epochs": 1000,
            "max_steps": UPDATES,
            "evaluate_every": EVERY,
            "sample_every": EVERY,
            "checkpoint_every": 5 * EVERY,
            "log_every": EVERY,
        },
    )
    assert Trainer(config, tiny_records, tmp_path / "run", report).train()
    assert len(curve) == UPDATES // EVERY
    thirds = np.array(curve).reshape(3, -1).mean(axis=1)
    print("MiB in each third:", thirds)
    # A graph that was traced anew for each picture took 9 MiB, which is 110 for a third.
    assert thirds[2] - thirds[1] < 20
