"""What is remembered for each user, in files of `$XDG_CACHE_HOME/stcn_tf` (~/.cache by default).

It only saves time: where it cannot be read there is nothing, where it cannot be written nothing is.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from stcn_tf.support.errors import UserError
from stcn_tf.support.files import replacing_file


def recall(name: str) -> dict[str, Any]:
    """The content of a file of this name; empty where there is none, or none that makes sense."""
    try:
        content = json.loads(_file(name).read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def remember(name: str, content: dict[str, Any]) -> bool:
    """Writes a file of this name in place of an earlier one; False where that cannot be."""
    with contextlib.suppress(OSError, RuntimeError, UserError):
        with replacing_file(_file(name)) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return True
    return False


def _file(name: str) -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(folder, "stcn_tf", f"{name}.json").expanduser()
