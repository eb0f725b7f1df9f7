import pytest

from stcn_tf.support.errors import reason_of

IN_A_GRAPH = """Graph execution error:

Detected at node Reduce defined at (most recent call last):
  File "a.py", line 39, in <module>

  File "a.py", line 26, in step

Collective ops is aborted: socket closed
more
  [[{{node Reduce}}]] [Op:__inference_step_1]"""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Exception(IN_A_GRAPH), "Collective ops is aborted: socket closed"),
        (ValueError("{{node a}} no such file [Op:RestoreV2]\nmore"), "no such file"),
        (OSError(28, "No space left on device", "/x"), "No space left on device"),
        (KeyError(), "KeyError"),
    ],
)
def test_the_reason_of_an_error_is_a_line(error, reason):
    assert reason_of(error) == reason
