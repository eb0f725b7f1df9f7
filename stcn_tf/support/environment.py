"""The environment in which TensorFlow is fastest here: oneDNN on or off, and how many threads.

It depends on the processor, so it is measured: `python -m stcn_tf.benchmark --what=environment`
remembers for each user what was fastest, for this processor and TensorFlow alone, and every command
starts with that. A variable that a person sets goes before it. Another environment rounds
otherwise: a run goes on bit for bit only in the one that it began in.
"""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from stcn_tf.support.remembered import recall, remember

# What TensorFlow reads when it is imported.
ONEDNN, THREADS = "TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS"
NAMES = (ONEDNN, THREADS, "TF_NUM_INTEROP_THREADS")

_FILE = "environment"


def processor() -> str:
    """Its name, family and the vector instructions that matter, where Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(
        (part.strip() for part in line.split(":", 1)) for line in reversed(lines) if ":" in line
    )
    units = {"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(facts.get("flags", "").split())
    name = facts.get("model name", platform.machine())
    family = f"family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}"
    return f"{name} ({family}; {', '.join(sorted(units))})"


def chosen() -> dict[str, str]:
    """The variables that were fastest here; empty: TensorFlow's own choice, or never measured."""
    found = recall(_FILE).get(_here())
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if name in NAMES and value.isdecimal()}


def choose(environment: Mapping[str, str]) -> bool:
    """Remembers what was fastest here; False where nothing can be remembered."""
    return remember(_FILE, recall(_FILE) | {_here(): dict(environment)})


def apply() -> None:
    """Sets what was chosen and a person has not set. Before TensorFlow is imported."""
    for name, value in chosen().items():
        os.environ.setdefault(name, value)


def set_here() -> dict[str, str]:
    """Those of the variables that are set, whoever did."""
    return {name: os.environ[name] for name in NAMES if name in os.environ}


def _here() -> str:
    try:
        version = importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:
        version = "?"
    return f"{os.cpu_count()} cores of {processor()}, TensorFlow {version}"
