"""What a run was made with: history.json in its directory, an entry for each start of a trainer."""

import functools
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import stcn_tf
from stcn_tf.config import Config
from stcn_tf.flags import flag_lines
from stcn_tf.runs import HISTORY_NAME
from stcn_tf.support import environment, strict_json
from stcn_tf.support.errors import UserError, reason_of
from stcn_tf.support.files import expand_home, replacing_file

# The first and the newest entries are kept: a run that is interrupted every hour stays small.
KEPT = 100
_GIT_SECONDS = 10


def add_start(folder: Path, start: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Adds an entry to a run's history.

    Args:
        folder: the run directory.
        start: the entry; see `about_start`.
        tell: told in one line where what was there cannot be read, and the history begins anew.

    Raises:
        UserError: it cannot be written; what was there is as it was.
    """
    file = folder / HISTORY_NAME
    starts, left_out = [], 0
    try:
        content = strict_json.parse(strict_json.read_text(file, str(file)), str(file))
        starts, left_out = list(content["starts"]), int(content["left_out"])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):  # a UserError is a ValueError
        tell(f"{file}: cannot be read; it begins anew")
    starts.append(start)
    surplus = max(0, len(starts) - KEPT)
    content = {"left_out": left_out + surplus, "starts": starts[:1] + starts[1 + surplus :]}
    try:
        with replacing_file(file) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({reason_of(error)})") from error


def about_start(
    config: Config, data_dir: str | os.PathLike, update: int, devices: str
) -> dict[str, Any]:
    """When, where, of what versions and with which settings a trainer starts.

    Args:
        config: of the run from here on.
        data_dir: folder of its records.
        update: after which it begins or goes on.
        devices: in words.
    """
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "update": update,
        "command": shlex.join(sys.orig_argv),
        "folder": _folder(),
        "records": os.path.abspath(expand_home(data_dir)),
        "settings": flag_lines(config),
        "versions": _versions(),
        "source": _source(),
        "host": socket.gethostname(),
        "processor": environment.processor(),
        "cores": os.cpu_count(),
        "environment": environment.set_here(),
        "devices": devices,
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")
        ],
    }


def _folder() -> str:
    """That the command was given in."""
    try:
        return os.getcwd()
    except OSError:  # it has been removed since
        return "?"


def _versions() -> dict[str, str]:
    return {
        "stcn_tf": stcn_tf.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "system": platform.platform(),
    }


# Once: what a process runs is what it imported, whatever is edited meanwhile.
@functools.cache
def _source(package: str = os.path.dirname(stcn_tf.__file__)) -> dict[str, Any] | None:
    """The commit of the source and whether files differ from it; None: it is in no repository."""
    # A package that is installed below somebody's repository is no part of that one.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--", ".")
    if commit is None or changed is None:
        return None
    return {"commit": commit.strip(), "is_changed": bool(changed.strip())}


def _git(folder: str, *arguments: str) -> str | None:
    """What git prints; None: it fails, or there is none."""
    # A variable may name another repository; and nothing is to be written into this one.
    others = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", "-C", folder, *arguments],
            env=others | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=_GIT_SECONDS,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
