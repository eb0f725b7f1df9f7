import pytest
import tensorflow as tf

from stcn_tf.support import devices


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([], "float32"),
        ([(8, 0)], "mixed_bfloat16"),
        ([(9, 0), (7, 5)], "float32"),
        ([None], "float32"),
    ],
)
def test_bfloat16_where_gpus_have_units_for_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: capabilities)
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda capability: {"compute_capability": capability} if capability else {},
    )
    assert devices.precision_of("auto") == expected
    assert devices.precision_of("float32") == "float32"


def test_xla_where_there_is_a_gpu(monkeypatch):
    assert not devices.compiles(None)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    assert devices.compiles(None)
    assert not devices.compiles(False) and devices.compiles(True)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_product_has_a_rate(jit_compile):
    assert devices.product_rate("float32", jit_compile, seconds=0.01) > 1e8
