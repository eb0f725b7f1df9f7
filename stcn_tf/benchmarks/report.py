"""The numbers of a benchmark as text, JSON and a picture."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from matplotlib.figure import Figure

from stcn_tf.support import environment
from stcn_tf.support.files import replacing_file

# What has a ratio is compared with something.
_RATIO = "times_faster"


def machine() -> dict[str, Any]:
    """The processor, its settings and the versions."""
    return {
        "processor": environment.processor(),
        "cores": os.cpu_count(),
        "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
        "environment": environment.set_here(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def heading(content: dict[str, Any]) -> str:
    """What was timed where, in one line."""
    facts = content["machine"]
    where = ", ".join([f"{facts['cores']} cores of {facts['processor']}", *facts["gpus"]])
    return f"{content['model']} on {where}; TensorFlow {facts['tensorflow']}"


def text(tables: dict[str, Any]) -> str:
    """Tables, one line for each way."""
    lines = []
    for title, rows in tables.items():
        lines += ["", title]
        for name, row in rows.items():
            line = f"  {name:36s}{1e3 * row['seconds']:10.2f} ms"
            if _RATIO in row:
                line += f"  {row[_RATIO]:7.2f} x ({row['least']:.2f} to {row['most']:.2f})"
            if "gflop_per_second" in row:
                line += f"  {row['gflop_per_second']:6.0f} GFLOP/s"
            if "of_product_rate" in row:
                line += f", {row['of_product_rate']:.0%} of a product's rate"
            if "peak_memory_mib" in row:
                line += f"  {row['peak_memory_mib']:6,} MiB"
            if "padding" in row:
                line += f"  {row['padding']:.1%} padding, {row['steps_per_second']:,.0f} steps/s"
            lines.append(line)
    return "\n".join(lines)


def write(content: dict[str, Any], out: Path) -> None:
    """Writes the numbers as JSON, and a picture of the ratios beside it."""
    with replacing_file(out) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    ratios = {
        f"{title}: {name}": row
        for title, rows in content["tables"].items()
        for name, row in rows.items()
        if _RATIO in row
    }
    figure = Figure(figsize=(9, 1 + 0.35 * len(ratios)), layout="constrained")
    axes = figure.add_subplot()
    values = [row[_RATIO] for row in ratios.values()]
    spread = [
        [row[_RATIO] - row["least"] for row in ratios.values()],
        [row["most"] - row[_RATIO] for row in ratios.values()],
    ]
    axes.barh(list(ratios), values, xerr=spread, color="tab:blue", ecolor="black", capsize=2)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("times as fast (median, least and most of pairs)")
    with replacing_file(out.with_suffix(".png")) as partial:
        figure.savefig(partial, format="png", dpi=120)
