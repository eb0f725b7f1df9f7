import pytest

from stcn_tf.support.remembered import recall, remember


def test_what_is_remembered_is_recalled(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert recall("it") == {}
    assert remember("it", {"a": [1, "b"]})
    assert recall("it") == {"a": [1, "b"]}
    assert recall("another") == {}
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert remember("it", {"a": 2})
    assert (tmp_path / "home/.cache/stcn_tf/it.json").is_file()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_what_makes_no_sense_is_nothing(tmp_path, monkeypatch, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    remember("it", {})
    (tmp_path / "stcn_tf/it.json").write_bytes(content)
    assert recall("it") == {}
