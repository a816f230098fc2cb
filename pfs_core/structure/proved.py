"""The proof of a network's channel graph, made once for the same code on a machine."""

import logging

import torch
from torch import nn

import pfs_core
from pfs_core.channels import ChannelGraph, Refuted, refuted_groups
from pfs_core.config.made_once import cache_file, made_once
from pfs_core.config.spec import Config
from pfs_core.models.sources import layers, source_digests

logger = logging.getLogger(__package__)


class Proof(Config):
    """Content of a file in the cache, see :class:`~pfs_core.channels.Refuted`."""

    frozen: dict[str, str]
    no_wider: dict[str, str]
    needed: dict[str, str]


def refuted_once(model: nn.Module, graph: ChannelGraph) -> Refuted:
    """Return what :func:`~pfs_core.channels.refuted_groups` finds, from the cache if it was found before.

    The name of its file is a digest of the graph, the model's layers, and the source code of their classes and of the
    proof itself.
    """

    def find() -> Proof:
        refuted = refuted_groups(model, graph)
        return Proof.model_validate(refuted._asdict())

    sources = source_digests(model, refuted_groups)
    versions = [pfs_core.__version__, torch.__version__]
    path = cache_file("proof", versions, repr(graph), layers(model), sources) if sources is not None else None
    return _told(made_once(path, Proof, find))


def _told(proof: Proof) -> Refuted:
    for name, reason in proof.frozen.items():
        logger.info(f"channel group {name} stays as it is: {reason}")
    for name, reason in proof.no_wider.items():
        logger.info(f"channel group {name} is not widened: {reason}")
    for name, reason in proof.needed.items():
        logger.info(f"the residual branch that ends in {name} is not left out: {reason}")
    return Refuted(proof.frozen, proof.no_wider, proof.needed)
