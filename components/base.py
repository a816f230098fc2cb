"""The decorator of all components, and the image that they run in."""

import os
import re
from collections.abc import Callable
from typing import Any

from kfp import dsl

import pfs_core
from pfs_core.errors import UserError

IMAGE = os.environ.get("PFS_IMAGE", f"pfs-python:{pfs_core.__version__}")
"""The image of the steps, read when a pipeline is compiled. The default tag is the version of the library, since KFP's
cache takes a step to be the same as long as its image is called the same."""

_HOST, _PART = r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]+)?", r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"({_HOST}/)?{_PART}(/{_PART})*(:(?P<tag>\w[\w.-]{{0,127}}))?(@(?P<digest>[a-z0-9+._-]+:[0-9a-f]{{32,}}))?",
    re.ASCII,
)
"""A registry, a path in small letters, a tag and a digest, all but the path optional, as Docker names images."""


def check_image(name: str) -> None:
    """Raise UserError for an image that steps should not run in.

    Its tag must change with every build: Kubeflow takes the results of earlier runs from its cache if they are of an
    image with the same name and tag. Its name must have "python" in it: kfp's local runner warns of all others.
    """
    found = _REFERENCE.fullmatch(name)
    if not found:
        raise UserError(f"{name!r} is no name of an image; e.g. registry/pfs-python:{pfs_core.__version__}")
    if (not found["digest"] and found["tag"] in (None, "latest")) or "python" not in name:
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
