"""A model that needs no training: what it draws is a function of seed, row and step alone."""

import json
import threading
import time

import numpy as np
import tensorflow as tf

from stcn_tf.data.card import DatasetCard, Feature, Modality, Normalization, Shard, Split

_FEATURES = {
    "handwriting": ("dx", "dy", "pen"),
    "audio": tuple(f"sample_{i}" for i in range(40)),
    "image": ("pixel",),
}
_MODALITIES = {
    "handwriting": Modality("handwriting"),
    "audio": Modality("audio", sample_rate_hz=1600),
    "image": Modality("image", height=12, width=10),
}
_REAL = {"handwriting": 2, "audio": 40, "image": 0}


def card_of(kind: str) -> DatasetCard:
    """The card of records of that kind."""
    names, real = _FEATURES[kind], _REAL[kind]
    length = 120 if kind == "image" else 300
    lengths = dict.fromkeys(("0", "0.5", "1"), length)
    std = 30.0 if kind == "handwriting" else 0.2
    return DatasetCard(
        format_version=1,
        name=f"fake {kind}",
        features=tuple(
            Feature(name, "real" if i < real else "binary", "units", "a feature")
            for i, name in enumerate(names)
        ),
        splits={
            "train": Split(1, length, lengths, (Shard("t-00000-of-00001.tfrecord", 1, 1, "0"),))
        },
        normalization=Normalization(
            "channel", (0.0,) * len(names), (std,) * real + (1.0,) * (len(names) - real)
        ),
        source_sha256="0",
        command="a test",
        extra={},
        modality=_MODALITIES[kind],
    )


class FakeModel:
    """The interface of a served model: loops of handwriting, tones, stripes.

    Args:
        kind: "handwriting", "audio" or "image".
        step_seconds: how long a step takes, whatever the number of rows.

    Attributes:
        rows: of each call for steps.
        is_broken: whether steps fail.
        gate: while it is closed, calls for steps wait.
    """

    num_layers = 3

    def __init__(self, kind: str = "handwriting", step_seconds: float = 0.0):
        self.kind = kind
        self._card = card_of(kind)
        self._step_seconds = step_seconds
        self.rows: list[int] = []
        self.is_broken = False
        self.gate = threading.Event()
        self.gate.set()

    @property
    def num_pixels(self) -> int:
        """Of an image."""
        return self._card.modality.height * self._card.modality.width

    def card(self) -> tf.Tensor:
        return tf.constant(json.dumps(json.loads(self._card.to_json())))

    def start(self, num, seed):
        rows = np.arange(num, dtype=np.int32)
        return {
            "row": rows,
            "step": np.zeros_like(rows),
            "seed": np.tile(np.asarray(seed)[:1], num),
            "sum": np.zeros(num, np.float32),
        }

    def begin(self, x, lengths, seed, latent_temperature):
        state = self.start(len(x), seed)
        state["step"] = np.asarray(lengths)
        state["sum"] = np.abs(x).sum(axis=(1, 2)).astype(np.float32)
        return state

    def steps(self, state, count, temperature, latent_temperature, binary_temperature):
        if self.is_broken:
            raise RuntimeError("out of ideas")
        self.rows.append(len(state["row"]))
        self.gate.wait(10)
        time.sleep(self._step_seconds * int(count))
        step = state["step"][:, None] + np.arange(count)
        phase = 0.37 * step + state["seed"][:, None] + 0.7 * state["row"][:, None]
        wide = temperature[:, None] * np.sin(phase)
        if self.kind == "handwriting":
            x = np.stack([14 + 30 * wide, 30 * np.cos(phase), step % 40 == 39], axis=-1)
        elif self.kind == "audio":
            time_s = (step[..., None] * 40 + np.arange(40)) / 1600
            pitch = 200 + 60 * state["row"][:, None, None]
            x = 0.3 * temperature[:, None, None] * np.sin(2 * np.pi * pitch * time_s)
        else:
            x = ((step + state["row"][:, None] + state["seed"][:, None]) % 4 < 2)[..., None]
        x = x.astype(np.float32)
        total = state["sum"] + np.abs(x).sum(axis=(1, 2))
        return {**state, "x": x, "step": state["step"] + count, "sum": total}

    def score(self, x, lengths, seed, latent_temperature):
        step = np.arange(x.shape[1])[None, :, None]
        kl = np.broadcast_to(
            np.abs(np.sin(step * np.array([0.05, 0.1, 0.3]))), (*x.shape[:2], self.num_layers)
        )
        log_likelihood = -np.abs(x).sum(axis=-1)
        return {"log_likelihood": log_likelihood, "kl": kl, "elbo": log_likelihood.sum(axis=1)}

    def reconstruct(self, x, lengths, seed, latent_temperature):
        return {"x": x, "probabilities": x}
