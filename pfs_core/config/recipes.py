"""Recipes: named choices of settings for all stages, each a function that returns them.

The paper's recipes cut as the paper does: to any width, and with residual streams that the expansion widens where the
network says so. The others are for networks that will run somewhere: the cut chooses widths at which the runtime is
fast, and streams, which are not pruned, stay as narrow as they were.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field

from pfs_core.config.spec import Config
from pfs_core.config.stages import ExtractConfig, LatencyConfig, RetrainConfig, SplitConfig
from pfs_core.config.warmup import with_fitting_warmup
from pfs_core.errors import UserError, did_you_mean


class Recipe(Config):
    """A named choice of settings for every stage of a pipeline."""

    split: SplitConfig = SplitConfig()
    """Settings of the split."""
    methods: dict[str, dict[str, Any]] = Field(default={})
    """Settings of the search that differ from a method's defaults, by the method's name."""
    extract: ExtractConfig = ExtractConfig()
    """Settings of the extraction."""
    retrain: RetrainConfig
    """Settings of the training."""
    latency: LatencyConfig = LatencyConfig()
    """Settings of the latency measurement."""

    def stage(self, name: str, changes: Mapping[str, Any]) -> Any:
        """Return the configuration of a stage with ``changes`` applied; fewer epochs shorten the recipe's warm-up.

        Args:
            name: any stage but the search: ``split``, ``extract``, ``retrain`` or ``latency``.
            changes: the settings to change.

        Raises:
            UserError: the stage has no such setting, or a value is not allowed.
        """
        config: Config = getattr(self, name)
        if name == "retrain":
            changes = with_fitting_warmup(changes, config.model_dump(), "warmup_epochs", "epochs")
        return config.updated(changes, name)


_IMAGENET_SPLIT = SplitConfig(validation_per_class=50, image_size=224)
_IMAGENET_TRAINING: dict[str, Any] = {"epochs": 90, "batch_size": 256, "milestones": [1 / 3, 2 / 3]}
_IMAGENET_METHODS: dict[str, dict[str, Any]] = {
    "pfs": {"epochs": 1, "batch_size": 100, "gamma": 0.05, "evaluate_every": 500},
    "network_slimming": _IMAGENET_TRAINING,
    "amc": {**_IMAGENET_TRAINING, "reward_rows": 3000},
}


_PAPERS_CUT = ExtractConfig(blocks=1, runtime="onnxruntime", threads=1)
_SFP_TRAINING = RetrainConfig(epochs=200, milestones=(0.3, 0.6, 0.8), factor=0.2)


def _with_narrow_streams(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return settings of methods, of which those that widen the network leave its residual streams as they are."""
    widening = {name: {"expand_stream": 1.0} for name in ("pfs", "uniform", "random")}
    return {name: {**widening.get(name, {}), **methods.get(name, {})} for name in {**widening, **methods}}


def standard() -> Recipe:
    """Return the usual settings: the paper's search and training for CIFAR-10, cut for the runtime it will run in."""
    return Recipe(methods=_with_narrow_streams({}), retrain=_SFP_TRAINING)


def cifar_sfp() -> Recipe:
    """Return the paper's setting for CIFAR-10: a search of 10 epochs, training as in He et al. (2018)."""
    return Recipe(extract=_PAPERS_CUT, retrain=_SFP_TRAINING)


def cifar_official() -> Recipe:
    """Return the schedule of the paper's released code: 160 epochs, a tenth of the learning rate at 50% and 75%."""
    training = RetrainConfig(epochs=160, nesterov=False, weight_decay=1e-4, milestones=(0.5, 0.75))
    return Recipe(extract=_PAPERS_CUT, retrain=training)


def imagenet_mobilenet() -> Recipe:
    """Return the paper's setting for MobileNets on ImageNet: 300 epochs with a cosine schedule."""
    return Recipe(
        split=_IMAGENET_SPLIT,
        methods=_IMAGENET_METHODS,
        extract=_PAPERS_CUT,
        retrain=RetrainConfig(
            epochs=300, batch_size=256, lr=0.05, nesterov=False, weight_decay=4e-5, schedule="cosine"
        ),
    )


def imagenet_resnet() -> Recipe:
    """Return the paper's setting for ResNets on ImageNet: 90 epochs as in He et al. (2016), with label smoothing."""
    return Recipe(
        split=_IMAGENET_SPLIT,
        methods=_IMAGENET_METHODS,
        extract=_PAPERS_CUT,
        retrain=RetrainConfig(
            epochs=90,
            batch_size=256,
            nesterov=False,
            weight_decay=1e-4,
            milestones=(1 / 3, 2 / 3),
            label_smoothing=0.1,
        ),
    )


def fast() -> Recipe:
    """Return settings for a first look at a dataset: a search until it has settled, 15 epochs with a cosine schedule.

    They are far from the paper's schedules: a run shows whether dataset and network work, not how accurate they get.
    """
    methods: dict[str, dict[str, Any]] = {
        "pfs": {"epochs": 5, "evaluate_every": 100, "settled": 0.1},
        "network_slimming": {"epochs": 15},
        "amc": {"epochs": 15, "episodes": 100, "warmup_episodes": 25, "reward_rows": 1000},
    }
    return Recipe(
        methods=_with_narrow_streams(methods),
        retrain=RetrainConfig(
            epochs=15, schedule="cosine", warmup_epochs=1, scratch_b=False, train_on_validation=False
        ),
    )


def demo() -> Recipe:
    """Return settings for seconds on a laptop with the embedded digits: a demonstration, from which nothing follows."""
    methods: dict[str, dict[str, Any]] = {
        "pfs": {"epochs": 30, "batch_size": 64},
        "network_slimming": {"epochs": 20},
        "amc": {"epochs": 20, "episodes": 60, "warmup_episodes": 20},
    }
    return Recipe(
        methods=_with_narrow_streams(methods),
        retrain=RetrainConfig(epochs=16, batch_size=64, schedule="cosine", scratch_b=False, train_on_validation=False),
        latency=LatencyConfig(patience_seconds=20.0, max_seconds=8.0, threads=(1,)),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "standard": standard,
    "cifar-sfp": cifar_sfp,
    "cifar-official": cifar_official,
    "imagenet-mobilenet": imagenet_mobilenet,
    "imagenet-resnet": imagenet_resnet,
    "fast": fast,
    "demo": demo,
}


def recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        UserError: there is none; the message lists the names.

    >>> recipe("cifar-official").retrain.epochs
    160
    """
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}{did_you_mean(name, RECIPES)}; known: {', '.join(RECIPES)}")
    return RECIPES[name]()


def default_recipe(dataset: str) -> str:
    """Return the name of the recipe for a dataset where none is named: ``demo`` for digits, else ``standard``."""
    return "demo" if dataset == "digits" else "standard"
