"""The decorator of all components, and the image that they run in."""

import os
from collections.abc import Callable
from typing import Any

from kfp import dsl

import pfs_core
from pfs_core.errors import UserError

IMAGE = os.environ.get("PFS_IMAGE", f"pfs-python:{pfs_core.__version__}")
"""The image of the steps, read when a pipeline is compiled. The default tag is the version of the library, since KFP's
cache takes a step to be the same as long as its image is called the same."""


def check_image(name: str) -> None:
    """Raise UserError for an image that steps should not run in.

    Its tag must change with every build: Kubeflow takes the results of earlier runs from its cache if they are of an
    image with the same name and tag. Its name must have "python" in it: kfp's local runner warns of all others.
    """
    last = name.rpartition("/")[2]
    tag = last.partition("@")[2] or last.partition(":")[2]
    if tag in ("", "latest") or "python" not in name:
        raise UserError(
            f'image {name!r} must have "python" in its name and a tag of its own for every build, since results are '
            f"cached by it; e.g. REGISTRY/pfs-python:{pfs_core.__version__}"
        )


def component(function: Callable) -> Any:
    """Turn a function into a KFP component that runs in ``IMAGE``, which has the library and kfp installed.

    KFP copies the source of the function and nothing around it, so the body must import what it calls. It can import
    only from ``pfs_core``: in a running component ``kfp.dsl`` has nothing but its artifact types, with which this
    package cannot be imported.
    """
    return dsl.component(function, base_image=IMAGE, install_kfp_package=False)
