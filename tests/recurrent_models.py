"""The recurrent models in NumPy, a step at a time, written from the equations of their papers."""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "reference" / "recurrent"
NUM_REAL, NUM_BINARY, NUM_COMPONENTS = 2, 1, 2


def weights_of(model):
    """Weights by their path without the model's name, float64."""
    return {w.path.split("/", 1)[1]: w.numpy().astype(np.float64) for w in model.weights}


def _sigmoid(v):
    return 1.0 / (1.0 + np.exp(-v))


def _logsumexp(v):
    return np.logaddexp.reduce(v)


def _softplus(v):
    return np.logaddexp(0.0, v)


def _relu(v):
    return np.maximum(v, 0.0)


def _clipped(v):
    return np.clip(np.where(v > 0, v, v / 3.0), -3.0, 3.0)


def _linear(w, name, v):
    return v @ w[f"{name}/kernel"][0] + w[f"{name}/bias"]


def _mlp(w, name, v, activation):
    i = 0
    while f"{name}/hidden_{i}/kernel" in w:
        v = activation(_linear(w, f"{name}/hidden_{i}", v))
        i += 1
    return v


def _lstm(w, name, v, state):
    h, c = state
    pre = v @ w[f"{name}/cell/kernel"] + h @ w[f"{name}/cell/recurrent_kernel"]
    i, f, g, o = np.split(pre + w[f"{name}/cell/bias"], 4)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru(w, name, v, h):
    of_v = np.split(v @ w[f"{name}/cell/kernel"] + w[f"{name}/cell/bias"][0], 3)
    of_h = np.split(h @ w[f"{name}/cell/recurrent_kernel"] + w[f"{name}/cell/bias"][1], 3)
    keep, reset = (_sigmoid(a + b) for a, b in zip(of_v[:2], of_h[:2], strict=True))
    return keep * h + (1.0 - keep) * np.tanh(of_v[2] + reset * of_h[2])


def _log_normal(x, mean, sigma):
    return -0.5 * np.log(2.0 * np.pi) - np.log(sigma) - 0.5 * ((x - mean) / sigma) ** 2


def _kl(q, p):
    squares = q[1] ** 2 + (q[0] - p[0]) ** 2
    return np.sum(np.log(p[1] / q[1]) + squares / (2.0 * p[1] ** 2) - 0.5)


def _log_likelihood(w, read, x):
    """A mixture of diagonal Gaussians, the component running fastest in the heads, and bits."""
    shape = (NUM_REAL, NUM_COMPONENTS)
    mean, sigma = (_linear(w, f"observation/{n}", read).reshape(shape).T for n in ("mean", "sigma"))
    sigma = np.clip(_softplus(sigma), 1e-3, 50.0)
    logits = _linear(w, "observation/component", read)
    of_components = np.sum(_log_normal(x[:NUM_REAL], mean, sigma), axis=-1)
    total = _logsumexp(logits - _logsumexp(logits) + of_components)
    bit = _linear(w, "observation/binary", read)
    return total + np.sum(x[NUM_REAL:] * bit - _softplus(bit))


def _units(w, name):
    kernel = w[f"{name}/cell/recurrent_kernel"]
    return len(kernel)


def _rnn(w, x, noise, settings):
    del noise
    layers = settings.get("recurrent_layers", 1)
    units = _units(w, "lstm_0")
    states = [(np.zeros(units), np.zeros(units))] * layers
    found = []
    for frame in x:
        found.append(_log_likelihood(w, _mlp(w, "theta", states[-1][0], _relu), frame))
        read = _mlp(w, "phi", frame, _relu)
        for i in range(layers):
            states[i] = _lstm(w, f"lstm_{i}", read, states[i])
            read = states[i][0]
    return {"log_likelihood": found}


def _vrnn(w, x, noise, settings):
    def gaussian(name, v):
        hidden = _mlp(w, f"{name}/network", v, _relu)
        return (
            _linear(w, f"{name}/mean", hidden),
            _softplus(_linear(w, f"{name}/spread", hidden)) + 1e-4,
        )

    h = c = np.zeros(_units(w, "lstm"))
    found, kl = [], []
    for frame, epsilon in zip(x, noise, strict=True):
        of_x = _mlp(w, "phi_x", frame, _relu)
        prior, posterior = gaussian("prior", h), gaussian("posterior", np.r_[of_x, h])
        if settings.get("residual_posterior"):
            posterior = posterior[0] + prior[0], posterior[1]
        z = posterior[0] + posterior[1] * epsilon
        of_z = _mlp(w, "phi_z", z, _relu)
        found.append(_log_likelihood(w, _mlp(w, "theta", np.r_[of_z, h], _relu), frame))
        kl.append([_kl(posterior, prior)])
        h, c = _lstm(w, "lstm", np.r_[of_x, of_z], (h, c))
    return {"log_likelihood": found, "kl": kl}


def _srnn(w, x, noise, settings):
    def gaussian(name, v):
        mean, log_variance = (
            _linear(w, f"{name}/{n}", _mlp(w, f"{name}/{n}_network", v, _clipped))
            for n in ("mean", "spread")
        )
        return mean, np.sqrt(np.exp(log_variance) + 1e-6)

    before = np.vstack([np.zeros_like(x[:1]), x[:-1]])
    d, state = [], np.zeros(_units(w, "d"))
    for frame in before:
        state = _gru(w, "d", _mlp(w, "e", frame, _clipped), state)
        d.append(state)
    read = [np.r_[a, _mlp(w, "e", frame, _clipped)] for a, frame in zip(d, x, strict=True)]
    if settings.get("smoothing", True):
        seen, state = [], np.zeros(_units(w, "a"))
        for v in reversed(read):
            state = _gru(w, "a", v, state)
            seen.insert(0, state)
    else:
        seen = [_mlp(w, "a", v, _clipped) for v in read]
    z = np.zeros(noise.shape[1])
    found, kl = [], []
    for frame, d_t, a_t, epsilon in zip(x, d, seen, noise, strict=True):
        prior, posterior = gaussian("prior", np.r_[d_t, z]), gaussian("posterior", np.r_[a_t, z])
        if settings.get("residual_posterior", True):
            posterior = posterior[0] + prior[0], posterior[1]
        z = posterior[0] + posterior[1] * epsilon
        found.append(_log_likelihood(w, _mlp(w, "g", np.r_[d_t, z], _clipped), frame))
        kl.append([_kl(posterior, prior)])
    return {"log_likelihood": found, "kl": kl}


def _z_forcing(w, x, noise, settings):
    def gaussian(name, v):
        hidden = _mlp(w, f"{name}/network", v, _clipped)
        mean, log_variance = (
            np.clip(_linear(w, f"{name}/{n}", hidden), -8.0, 8.0) for n in ("mean", "spread")
        )
        return mean, np.exp(0.5 * log_variance)

    b, state = [], (np.zeros(_units(w, "b")),) * 2
    for frame in x[::-1]:
        state = _lstm(w, "b", _linear(w, "e", frame), state)
        b.insert(0, state[0])
    h = c = np.zeros(_units(w, "h"))
    found, kl, auxiliary = [], [], []
    before = np.zeros_like(x[0])
    for t, (frame, b_t, epsilon) in enumerate(zip(x, b, noise, strict=True)):
        of_x = _linear(w, "e", before)
        last = of_x if settings.get("prior_sees_last_frame") else of_x[:0]
        prior, posterior = (
            gaussian("prior", np.r_[h, last]),
            gaussian("posterior", np.r_[h, b_t, last]),
        )
        z = posterior[0] + posterior[1] * epsilon
        mean, sigma = gaussian("auxiliary", np.r_[h, z])
        of_b = np.sum(_log_normal(b_t, np.tanh(mean), sigma))
        mean, spread = (_linear(w, f"backward/{n}", b_t) for n in ("mean", "spread"))
        of_frame = np.sum(_log_normal(before, mean, np.exp(0.5 * spread))) if t else 0.0
        auxiliary.append(
            -settings.get("auxiliary_weight", 0.015) * of_b
            - settings.get("backward_weight", 0.015) * of_frame
        )
        h, c = _lstm(w, "h", np.r_[_linear(w, "w", z), of_x], (h, c))
        found.append(_log_likelihood(w, h, frame))
        kl.append([_kl(posterior, prior)])
        before = frame
    return {"log_likelihood": found, "kl": kl, "auxiliary": auxiliary}


def _bi_lstm(w, x, noise, settings):
    def gaussian(name, v):
        hidden = _mlp(w, f"{name}/network", v, _clipped)
        mean, log_variance = (
            np.clip(_linear(w, f"{name}/{n}", hidden), -8.0, 8.0) for n in ("mean", "spread")
        )
        return mean, np.exp(0.5 * log_variance)

    before = np.vstack([np.zeros_like(x[:1]), x])
    b, state = [], (np.zeros(_units(w, "b")),) * 2
    for frame in before[::-1]:
        state = _lstm(w, "b", frame, state)
        b.insert(0, state[0])
    h = c = np.zeros(_units(w, "h"))
    latent = noise.shape[1] - len(h) - 1
    found, kl, auxiliary = [], [], []
    for t, frame in enumerate(x):
        prior, posterior = gaussian("prior", h), gaussian("posterior", np.r_[h, b[t]])
        z = posterior[0] + posterior[1] * noise[t, :latent]
        of_b, of_h = gaussian("backward", z), gaussian("forward", z)
        auxiliary.append(
            -settings["auxiliary_weight"] * np.sum(_log_normal(b[t], *of_b))
            - settings["forward_weight"] * np.sum(_log_normal(h, *of_h))
        )
        drawn = of_b[0] + of_b[1] * noise[t, latent:-1]
        h, c = _lstm(w, "h", np.r_[before[t], z, drawn], (h, c))
        found.append(_log_likelihood(w, _mlp(w, "g", h, _clipped), frame))
        kl.append([_kl(posterior, prior)])
    return {"log_likelihood": found, "kl": kl, "auxiliary": auxiliary}


def _f_srnn(w, x, noise, settings):
    del settings

    def gaussian(name, v):
        hidden = _mlp(w, f"{name}/network", v, _clipped)
        mean, log_variance = (
            np.clip(_linear(w, f"{name}/{n}", hidden), -8.0, 8.0) for n in ("mean", "spread")
        )
        return mean, np.exp(0.5 * log_variance)

    zero = (np.zeros(_units(w, "d")),) * 2
    before = np.vstack([np.zeros_like(x[:1]), x[:-1]])
    b, state = [], zero
    for frame in x[::-1]:
        state = _lstm(w, "b", _linear(w, "e", frame), state)
        b.insert(0, state[0])
    deterministic, output = zero, zero
    found, kl = [], []
    for t, frame in enumerate(x):
        deterministic = _lstm(w, "d", _linear(w, "e", before[t]), deterministic)
        d = deterministic[0]
        prior, posterior = gaussian("prior", d), gaussian("posterior", np.r_[b[t], d])
        z = posterior[0] + posterior[1] * noise[t]
        output = _lstm(w, "h", np.r_[d, z], output)
        found.append(_log_likelihood(w, output[0], frame))
        kl.append([_kl(posterior, prior)])
    return {"log_likelihood": found, "kl": kl}


FORWARD = {
    "FSRNN": _f_srnn,
    "RNN": _rnn,
    "VRNN": _vrnn,
    "SRNN": _srnn,
    "ZForcing": _z_forcing,
    "VariationalBiLSTM": _bi_lstm,
}


def write_golden(kind: str, model, x: np.ndarray, noise: np.ndarray | None) -> None:
    """Writes weights, frames and results of a model of default settings."""
    settings = {"auxiliary_weight": 1.0, "forward_weight": 0.0} if "Bi" in kind else {}
    weights = weights_of(model)
    expected = FORWARD[kind](weights, x.astype(np.float64), noise, settings)
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(
        GOLDEN / f"{kind}.npz",
        x=x,
        **{f"weights/{path}": value.astype(np.float32) for path, value in weights.items()},
        **{f"expected/{name}": np.asarray(value) for name, value in expected.items()},
    )
