"""What the processors of this machine are, and what is sensible on them."""

import contextlib
import os
import resource
import time
from pathlib import Path

import tensorflow as tf

# The first GPUs that multiply bfloat16 matrices.
_BFLOAT16_CAPABILITY = (8, 0)
# Rows and columns of the product that is timed: as a layer of 512 filters meets some batches.
_PRODUCT = (4096, 512, 512)


def has_gpu() -> bool:
    """Whether there is a GPU to compute on."""
    return bool(tf.config.list_logical_devices("GPU"))


def compiles(jit_compile: bool | None) -> bool:
    """Whether to compile with XLA; None: on GPUs, where starting operations takes the time."""
    return has_gpu() if jit_compile is None else jit_compile


def precision_of(precision: str) -> str:
    """The arithmetic of a setting; "auto": bfloat16 where GPUs have units for it, else float32."""
    if precision != "auto":
        return precision
    gpus = tf.config.list_physical_devices("GPU")
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability") or (0, 0)
        for gpu in gpus
    ]
    is_fast = bool(gpus) and min(capabilities) >= _BFLOAT16_CAPABILITY
    return "mixed_bfloat16" if is_fast else "float32"


def memory_bytes() -> int:
    """The memory that this process may use, were it alone: the machine's, or what it is limited to.

    Linux tells of containers' limits, and every system of `ulimit -v`.
    """
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        sizes.append(limit)
    with contextlib.suppress(OSError, ValueError):  # "max": none
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(sizes)


def product_rate(dtype: str, jit_compile: bool = False, seconds: float = 0.1) -> float:
    """The rate of a product of matrices, in floating-point operations a second.

    Args:
        dtype: of the matrices, "float32" or "bfloat16".
        jit_compile: compile it with XLA.
        seconds: how long to try; the fastest product counts.
    """
    rows, inner, columns = _PRODUCT
    a, b = (tf.cast(tf.ones(shape), dtype) for shape in ((rows, inner), (inner, columns)))
    product = tf.function(tf.matmul, jit_compile=jit_compile, autograph=False)
    product(a, b)
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        product(a, b)[0, 0].numpy()  # one number, which waits for all of them
        fastest = min(fastest, time.perf_counter() - start)
    return 2.0 * rows * inner * columns / fastest
