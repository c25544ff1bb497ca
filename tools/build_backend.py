"""The PEP 517 backend: setuptools', which requires what compiling takes of native builds alone.

Otherwise `FASTGAN_BUILD=none pip install .` would download torch, cmake and ninja, and use none of them. It
does not stand in the root because `backend-path` would put that on the path, with `kernels` and the rest.
"""

import os

import setuptools.build_meta
from setuptools.build_meta import *  # noqa: F403

# torch is needed for its headers alone; thanks to its stable ABI any version >= 2.10 will do.
NATIVE = ["cmake>=3.25", "ninja", "torch>=2.10"]


def get_requires_for_build_wheel(config_settings=None):
    return setuptools.build_meta.get_requires_for_build_wheel(config_settings) + _of_the_build()


def get_requires_for_build_editable(config_settings=None):
    return setuptools.build_meta.get_requires_for_build_editable(config_settings) + _of_the_build()


def _of_the_build() -> list[str]:
    return [] if os.environ.get("FASTGAN_BUILD") == "none" else NATIVE
