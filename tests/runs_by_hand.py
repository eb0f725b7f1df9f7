"""Run directories and evaluations without training, as the commands would have written them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from stcn_tf.config import Config, RunSettings, TrainingSettings
from stcn_tf.data.card import DatasetCard, Feature, Modality, Normalization, Shard, Split
from stcn_tf.inference import table
from stcn_tf.inference.evaluation import Evaluation
from stcn_tf.models.registry import make_settings
from stcn_tf.run_status import RunStatus
from stcn_tf.runs import RunDirectory

QUANTILES = ("0", "0.05", "0.25", "0.5", "0.75", "0.95", "1")


def card_of(name: str = "iamondb", **changes: Any) -> DatasetCard:
    """The card of the records that the paper scored, but for changes: split, normalization, ..."""
    facts = {
        "iamondb": (("valid", 1438, 884_526), "vrnn", {"split": "vrnn"}),
        "timit": (("test", 1680, 100_000), "scalar", {"split": "srnn"}),
        "mnist": (("test", 10_000, 7_840_000), "none", {"binarization": "larochelle"}),
        "fsdd": (("valid", 5, 50), "scalar", {}),
    }[name]
    (split, count, steps), normalization, extra = facts
    features = {
        "iamondb": [("dx", "real"), ("dy", "real"), ("pen", "binary")],
        "mnist": [("pixel", "binary")],
    }.get(name, [(f"sample_{i}", "real") for i in range(200)])
    stds = [1.0 if kind == "binary" else 2.0 for _, kind in features]
    count, steps = changes.get("sizes", (count, steps))
    lengths = dict.fromkeys(QUANTILES, 784 if name == "mnist" else steps // count)
    shard = Shard("valid-00000-of-00001.tfrecord", count, 10, "0" * 64)
    return DatasetCard(
        format_version=1,
        name=name,
        features=tuple(Feature(n, kind, "unit", "A.") for n, kind in features),
        splits={changes.get("split", split): Split(count, steps, lengths, (shard,))},
        normalization=Normalization(
            changes.get("normalization", normalization), (0.0,) * len(features), tuple(stds)
        ),
        source_sha256=changes.get("source", "ab" * 32),
        command="a test",
        extra=extra | changes.get("extra", {}),
        modality=Modality("image", height=28, width=28)
        if name == "mnist"
        else Modality("handwriting")
        if name == "iamondb"
        else Modality("audio", sample_rate_hz=16000),
    )


def make_run(
    folder: Path, card: DatasetCard, model: str = "stcn_dense", made: bool = True, **settings: Any
) -> Path:
    """A run directory; `made`: with status and history."""
    config = Config(make_settings(model, **settings), TrainingSettings(), RunSettings())
    RunDirectory.prepare(folder, config, card)
    if made:
        about = {"best_of": "ELBO (raw)", "best_update": 800, "num_parameters": 1234567}
        RunStatus("finished", 900, 1000, processor_hours=1.5, **about).write(folder)
        source = {"commit": "0123456789abcdef", "is_changed": True}
        best = folder / "checkpoints" / "best" / "ckpt-800.index"
        best.parent.mkdir(parents=True, exist_ok=True)
        best.touch()
        start = {"source": source, "gpus": [], "records": "/nowhere"}
        (folder / "history.json").write_text(json.dumps({"left_out": 0, "starts": [start]}))
    return folder


def evaluate(
    run: Path,
    elbo: np.ndarray,
    *,
    kl: np.ndarray | None = None,
    tight: np.ndarray | None = None,
    objective: np.ndarray | None = None,
    groups: tuple[str, ...] | None = None,
    steps: np.ndarray | None = None,
    names: tuple[str, ...] | None = None,
    card: DatasetCard | None = None,
    file: str = "",
    **about: Any,
) -> Path:
    """Writes an evaluation of `elbo` [sequences]; without `kl` [sequences, layers] it is exact."""
    directory = RunDirectory.open(run)
    card = card or directory.card
    num = len(elbo)
    layers = kl.shape[1] if kl is not None else 0
    evaluation = Evaluation(
        ids=names or tuple(f"s{i}" for i in range(num)),
        groups=groups or ("",) * num,
        log_likelihood=elbo + (kl.sum(axis=1) if layers else 0),
        kl=kl if layers else np.zeros((num, 0)),
        elbo=elbo,
        objective=elbo if objective is None else objective,
        importance_weighted=tight,
        fivo=None,
        at_floor=np.zeros((num, 1 + layers)),
        num_steps=np.full(num, 10) if steps is None else steps,
        num_samples=about.pop("num_samples", 1),
        active_units=(1,) * layers,
    )
    model = SimpleNamespace(
        latent_sizes=(2,) * layers,
        observation=SimpleNamespace(is_density=not about.get("released_floors", False)),
        is_objective_a_bound=objective is None,
        num_given_frames=about.pop("num_given_frames", 0),
        do_latents_reach_across_steps=False,
    )
    what = {
        "run": str(run),
        "model": directory.config.model.model,
        "posterior_draws": "shared" if layers else None,
        "posterior_scale": "std" if layers else None,
        "released_floors": False,
        "trained_with": {},
        "checkpoint": "best",
        "update": 800,
        "split": next(iter(card.splits)),
        "seed": 0,
        "bound": "elbo" if tight is None else "iwae",
        "given_frames": 0,
        "piece": 0,
    }
    path = run / "evaluations" / f"{file or what['bound']}.json"
    table.write(table.summary(evaluation, model, card, what | about), path)
    table.write_sequences(evaluation, model, path.with_suffix(".csv"))
    return path
