"""The weights that a structure inherits from a trained network, which fine-tuning starts from.

Methods that train a network before they prune it (Network Slimming, AMC) leave it in the ``gates`` folder. A cut slices
its weights: ``inherited.safetensors`` in the ``structures`` folder holds those of the pruned network, by its own names.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

from pfs_core.channels import ChannelGraph, resize, slice_weights
from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.models import build_model
from pfs_core.nn.weights import weights_of

logger = logging.getLogger(__package__)

FILE, OLD_FILE = "inherited.safetensors", "kept.safetensors"
"""The weights in a ``structures`` folder, and their name in folders that version 0.1.0 wrote."""
TRAINED, CHANNELS = "trained.safetensors", "trained_channels.safetensors"
"""In a ``gates`` folder: the trained weights, and the gates of each group that the network still has (int64)."""


class Trained(NamedTuple):
    """A trained network, which may already have lost channels in training.

    Attributes:
        weights: the state of the network, by its own names.
        left: the positions of the gates that it still has in rising order, ``{group: int64 [n]}``.
    """

    weights: Mapping[str, Tensor]
    left: Mapping[str, Tensor]


def save_trained(folder: Path, trained: Trained) -> None:
    """Write the trained weights and their channels into a ``gates`` folder."""
    save_file(dict(trained.weights), folder / TRAINED)
    save_file(dict(trained.left), folder / CHANNELS)


def inherited_weights(
    gates_dir: Path,
    spec: ModelSpec,
    graph: ChannelGraph,
    gates: Mapping[str, Tensor],
    widths: Mapping[str, int],
) -> dict[str, Tensor] | None:
    """Return the trained weights of the channels that a cut keeps, by the names of the pruned network.

    Args:
        gates_dir: a ``gates`` folder.
        spec: the network.
        graph: the channel graph of the unexpanded network.
        gates: the gates in that folder; the largest of each group are kept.
        widths: the width of every group after the cut.

    Returns:
        The weights; None where no network was trained, or where it had lost channels that the cut keeps.
    """
    if not (gates_dir / TRAINED).exists():
        return None
    left = load_file(gates_dir / CHANNELS)
    before = graph.expanded(spec.expand, spec.expand_stream)
    before |= {name: len(part) * graph.group(name).per_gate for name, part in left.items()}
    model = resize(build_model(spec), graph, before)
    model.load_state_dict(load_file(gates_dir / TRAINED))
    places = {}
    for name, part in left.items():
        count = widths[name] // graph.group(name).per_gate
        if count > len(part):
            logger.warning(
                f"extract {name} keeps channels that had been cut in training: it has no weights to fine-tune"
            )
            return None
        largest = gates[name][part].argsort(descending=True, stable=True)[:count]
        places[name] = largest.sort().values
    inherited = slice_weights(model, graph.with_widths(before), places)
    return weights_of(inherited)


def inherited_file(structure: str | Path) -> Path:
    """Return the file of inherited weights beside a structure file.

    Raises:
        UserError: there is none.
    """
    path = Path(structure).with_name(FILE)
    if path.exists():
        return path
    if (old := path.with_name(OLD_FILE)).exists():
        return old
    raise UserError(
        f"retrain.start=inherited starts from trained weights, and {path} is not there; choose the structure with a "
        "method that trains a network, e.g. search.method=network_slimming, and where its cut keeps channels that were "
        "lost in the training, set extract.blocks=1 or ask for less"
    )
