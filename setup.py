"""Packaging: `pip install -e .[dev]` installs the two packages, their needs and the tools."""

import shutil
from pathlib import Path

import setuptools
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class _BuildWithFlagfiles(build_py):
    """Puts the flagfiles of experiments/, and the paper's numbers, where commands look for them.

    An editable installation has them where they are (`stcn_tf/support/flagfiles.py`).
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        experiments = HERE / "experiments"
        for source in [*sorted(experiments.rglob("*.flags")), experiments / "paper/tables.json"]:
            target = Path(self.build_lib, "stcn_tf", source.relative_to(HERE))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def _requirements() -> list[str]:
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setuptools.setup(
    name="stcn_tf",
    version="0.1.0",
    description="STCN: stochastic temporal convolutional networks in TensorFlow",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=setuptools.find_packages(include=["stcn_tf", "stcn_tf.*", "data_prep", "data_prep.*"]),
    cmdclass={"build_py": _BuildWithFlagfiles},
    package_data={
        "data_prep": ["splits/**/*.txt"],
        "stcn_tf": ["pretrained/**/*", "web/page/**/*"],
    },
    entry_points={"console_scripts": ["stcn-tf = stcn_tf.__main__:main"]},
    install_requires=_requirements(),
    extras_require={
        "dev": [
            "httpx>=0.28,<1",
            "hypothesis>=6.120,<7",
            "ipykernel>=7,<8",
            "nbclient>=0.10,<1",
            "nbformat>=5.10,<6",
            "playwright>=1.60,<2",
            "pytest>=8.3,<10",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.17,<0.18",
            "soundfile>=0.13,<0.15",
        ],
    },
)
