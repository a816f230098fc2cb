"""What every component shares: the image it runs in."""

import os
from collections.abc import Callable
from typing import Any

from kfp import dsl

import pfs_core
from pfs_core.errors import UserError

IMAGE = os.environ.get("PFS_IMAGE", f"pfs-python:{pfs_core.__version__}")
"""Read when the package is compiled. The tag is the library's version: KFP's cache does not see library code."""


def check_image(name: str) -> None:
    """Raise UserError for an image that steps should not run in.

    Kubeflow takes results of earlier runs from its cache if name and tag of the image are theirs, and kfp's local
    runner warns of an image whose name does not say that it has Python.
    """
    last = name.rpartition("/")[2]
    tag = last.partition("@")[2] or last.partition(":")[2]
    if tag in ("", "latest") or "python" not in name:
        raise UserError(
            f'image {name!r} must have "python" in its name and a tag of its own for every build, since results are '
            f"cached by it; e.g. REGISTRY/pfs-python:{pfs_core.__version__}"
        )


def component(function: Callable) -> Any:
    """A KFP component that runs in ``IMAGE``, which has the library and kfp installed.

    KFP copies the function's source and nothing around it, so its body imports what it calls, and only from
    ``pfs_core``: in a running component ``kfp.dsl`` is reduced to its artifact types and this package cannot load.
    """
    return dsl.component(function, base_image=IMAGE, install_kfp_package=False)
