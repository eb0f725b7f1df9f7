"""What is timed in processes of its own: how it scales, and where TensorFlow is fastest."""

import dataclasses
import math
from typing import Any

from stcn_tf.benchmarks.measure import compared, interleaved
from stcn_tf.benchmarks.sizes import Sizes
from stcn_tf.benchmarks.worker import Worker
from stcn_tf.models.settings import ModelSettings
from stcn_tf.support import environment as of_tensorflow
from stcn_tf.support.environment import ONEDNN, THREADS

# The environments that are tried, beside TensorFlow's own choice.
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "oneDNN off": {ONEDNN: "0"},
    "oneDNN on": {ONEDNN: "1"},
    "one thread an operation": {THREADS: "1"},
    "oneDNN off, one thread": {ONEDNN: "0", THREADS: "1"},
    "oneDNN on, one thread": {ONEDNN: "1", THREADS: "1"},
}
# How many times as fast an environment must be to be chosen: less is noise.
WORTH = 1.05

_DRAWS = (1, 4, 64)


def scaling(settings: ModelSettings, sizes: Sizes) -> dict[str, Any]:
    """Updates over length, batch, filters and depth; evaluation over draws; with their memory."""
    updates: dict[str, tuple[ModelSettings, Sizes]] = {}
    for factor in (0.5, 2.0):
        for name in ("length", "batch_size"):
            updates[f"{name} x {factor:g}"] = (settings, _scaled(sizes, name, factor))
        for name in ("num_filters", "blocks_per_layer"):
            updates[f"{name} x {factor:g}"] = (_scaled(settings, name, factor), sizes)
    draws = {
        f"K = {count}": (settings, dataclasses.replace(sizes, num_samples=count))
        for count in _DRAWS
    }
    return {
        "scaling, an update": _beside(
            "update", f"{sizes.batch_size} x {sizes.length} steps", (settings, sizes), updates
        ),
        "scaling, an evaluation": _beside(
            "evaluation", f"K = {sizes.num_samples}", (settings, sizes), draws
        ),
    }


def environment(settings: ModelSettings, sizes: Sizes) -> dict[str, Any]:
    """Updates and generation in each environment; the fastest is remembered for all commands."""
    titles = {"update": "environment, an update", "generation": "environment, generation"}
    default = "as TensorFlow chooses"
    tables: dict[str, Any] = {title: {} for title in titles.values()}
    scores = {}
    unset = dict.fromkeys(of_tensorflow.NAMES)
    with Worker(list(titles), (settings, sizes), unset) as plain:
        for name, variables in ENVIRONMENTS.items():
            with Worker(list(titles), (settings, sizes), unset | variables) as other:
                for what, title in titles.items():
                    runs = {default: lambda w=what: plain(w), name: lambda w=what: other(w)}
                    rows = compared(interleaved(runs, sizes.rounds), default)
                    tables[title] = {default: rows[default]} | tables[title] | {name: rows[name]}
            ratios = [tables[title][name]["times_faster"] for title in titles.values()]
            scores[name] = math.prod(ratios) ** (1 / len(ratios))
    best = max(scores, key=scores.get)
    chosen = ENVIRONMENTS[best] if scores[best] >= WORTH else {}
    what = " ".join(f"{key}={value}" for key, value in chosen.items()) or default
    if of_tensorflow.choose(chosen):
        print(f"chosen for all commands on this processor: {what}")
    else:
        print(f"fastest: {what}; it cannot be remembered in $XDG_CACHE_HOME")
    return tables


def _scaled(of: Any, name: str, factor: float) -> Any:
    return dataclasses.replace(of, **{name: max(int(factor * getattr(of, name)), 1)})


def _beside(
    what: str, base: str, arguments: tuple, variants: dict[str, tuple]
) -> dict[str, dict[str, Any]]:
    """Each variant alternating with the base, its process beside that of the base alone."""
    sizes: Sizes = arguments[1]
    with Worker([what], arguments) as plain:
        table = {}
        for name, its_arguments in variants.items():
            with Worker([what], its_arguments) as other:
                runs = {base: lambda: plain(what), name: lambda o=other: o(what)}
                rows = compared(interleaved(runs, sizes.rounds), base)
                for of_process, row in ((plain, rows[base]), (other, rows[name])):
                    row["peak_memory_mib"] = of_process.peak_memory()
                    if operations := of_process.operations(what):
                        row["gflop_per_second"] = operations / row["seconds"] / 1e9
                table = {base: rows[base]} | table | {name: rows[name]}
    return table
