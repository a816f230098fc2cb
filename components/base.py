"""What every component shares: the image it runs in."""

import os
from collections.abc import Callable
from typing import Any

from kfp import dsl

import pfs_core

IMAGE = os.environ.get("PFS_IMAGE", f"pfs-python:{pfs_core.__version__}")
"""Read when the package is compiled. The tag is the library's version: KFP's cache does not see library code."""


def component(function: Callable) -> Any:
    """A KFP component that runs in ``IMAGE``, which has the library and kfp installed.

    KFP copies the function's source and nothing around it, so its body imports what it calls, and only from
    ``pfs_core``: in a running component ``kfp.dsl`` is reduced to its artifact types and this package cannot load.
    """
    return dsl.component(function, base_image=IMAGE, install_kfp_package=False)
