"""Packaging: `pip install -e .[dev]` installs the two packages, their needs and the tools."""

from pathlib import Path

import setuptools

HERE = Path(__file__).parent


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
    package_data={"data_prep": ["splits/**/*.txt"]},
    install_requires=_requirements(),
    extras_require={
        "dev": [
            "hypothesis>=6.120,<7",
            "pytest>=8.3,<10",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.17,<0.18",
        ],
    },
)
