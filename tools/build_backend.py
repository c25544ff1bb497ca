"""The PEP 517 backend: setuptools with build requirements that depend on FASTGAN_BUILD.

With fixed requirements, `FASTGAN_BUILD=none pip install .` would download torch, cmake and ninja without
using them. The file is not in the root, because `backend-path` would put the root, with `kernels` etc., on
the path.
"""

import os

import setuptools.build_meta
from setuptools.build_meta import *  # noqa: F403

# torch is only needed for its headers; thanks to the stable ABI any version >= 2.10 will do.
NATIVE = ["cmake>=3.25", "ninja", "torch>=2.10"]


def get_requires_for_build_wheel(config_settings=None):
    return setuptools.build_meta.get_requires_for_build_wheel(config_settings) + _native_requirements()


def get_requires_for_build_editable(config_settings=None):
    return setuptools.build_meta.get_requires_for_build_editable(config_settings) + _native_requirements()


def _native_requirements() -> list[str]:
    return [] if os.environ.get("FASTGAN_BUILD") == "none" else NATIVE
