"""The proof of a network's channel graph, made once for the same code on a machine."""

import inspect
import logging

import torch
from torch import nn

import pfs_core
from pfs_core.channels import ChannelGraph, Refuted, refuted_groups
from pfs_core.config.made_once import cache_file, made_once
from pfs_core.config.spec import Config
from pfs_core.storage.digests import file_digest

logger = logging.getLogger(__package__)


class Proof(Config):
    """Content of a file in the cache, see :class:`~pfs_core.channels.Refuted`."""

    frozen: dict[str, str]
    no_wider: dict[str, str]


def refuted_once(model: nn.Module, graph: ChannelGraph) -> Refuted:
    """Return what :func:`~pfs_core.channels.refuted_groups` finds, from the cache if it was found before.

    The name of its file is a digest of the graph, the model's layers, and the source code of their classes and of the
    proof itself.
    """

    def find() -> Proof:
        refuted = refuted_groups(model, graph)
        return Proof(frozen=dict(refuted.frozen), no_wider=dict(refuted.no_wider))

    try:
        files = {inspect.getfile(refuted_groups), *(inspect.getfile(type(module)) for module in model.modules())}
        sources = {path: file_digest(path) for path in sorted(files)}
    except (TypeError, OSError):  # classes that were typed in somewhere
        return _told(find())
    versions = [pfs_core.__version__, torch.__version__]
    path = cache_file("proof", versions, repr(graph), repr(model), list(sources.values()))
    return _told(made_once(path, Proof, find))


def _told(proof: Proof) -> Refuted:
    for name, reason in proof.frozen.items():
        logger.info(f"channel group {name} stays as it is: {reason}")
    for name, reason in proof.no_wider.items():
        logger.info(f"channel group {name} is not widened: {reason}")
    return Refuted(proof.frozen, proof.no_wider)
