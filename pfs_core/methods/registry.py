"""One row per method: what it is called, how it is configured, what runs it and what the report says of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pfs_core.config.recipes import Recipe
from pfs_core.config.request import DEFAULT_METHOD
from pfs_core.config.warmup import with_fitting_warmup
from pfs_core.errors import UserError, did_you_mean
from pfs_core.methods.amc import config as amc
from pfs_core.methods.config import MethodConfig, TrainedConfig
from pfs_core.methods.network_slimming import config as network_slimming
from pfs_core.methods.pfs import config as pfs
from pfs_core.methods.random import config as random
from pfs_core.methods.uniform import config as uniform

if TYPE_CHECKING:
    from pfs_core.methods.context import SearchContext
    from pfs_core.methods.result import MethodResult
    from pfs_core.methods.search_info import SearchInfo


@dataclass(frozen=True)
class Method:
    """A way of choosing a structure.

    Attributes:
        name: as users write it.
        title: as reports write it.
        config: its settings.
        entry: ``module:function`` of what runs it. It is imported when it runs, since this table is also read by the
            command line's help, which must not wait for torch.
        describe: what was done, in words, from ``search.json`` and the last row of the history.
        any_budget: whether one search serves every budget, as the order of the gates does not depend on it.
    """

    name: str
    title: str
    config: type[MethodConfig]
    entry: str
    describe: Callable[["SearchInfo", Mapping[str, Any]], str]
    any_budget: bool = True

    @property
    def trains(self) -> bool:
        """Whether it trains a network, whose weights a cut can inherit."""
        return issubclass(self.config, TrainedConfig)

    def run(self, context: "SearchContext") -> "MethodResult":
        """Choose.

        Raises:
            UserError: the method cannot be used with this network or budget.
        """
        module, _, function = self.entry.partition(":")
        result: MethodResult = getattr(import_module(module), function)(context)
        return result


METHODS = {
    method.name: method
    for method in (
        Method("pfs", "Pruning from Scratch", pfs.PfsConfig, "pfs_core.methods.pfs.search:run", pfs.describe),
        Method(
            "uniform",
            "one factor for all widths",
            uniform.UniformConfig,
            "pfs_core.methods.uniform.search:run",
            uniform.describe,
        ),
        Method("random", "random widths", random.RandomConfig, "pfs_core.methods.random.search:run", random.describe),
        Method(
            "network_slimming",
            "Network Slimming",
            network_slimming.NetworkSlimmingConfig,
            "pfs_core.methods.network_slimming.search:run",
            network_slimming.describe,
        ),
        Method("amc", "AMC", amc.AmcConfig, "pfs_core.methods.amc.search:run", amc.describe, any_budget=False),
    )
}


def method_named(name: object) -> Method:
    """The method of that name; UserError lists the names if there is none."""
    if not isinstance(name, str) or name not in METHODS:
        hint = did_you_mean(str(name), METHODS)
        raise UserError(f"search.method: {name!r} is not known{hint}; known: {', '.join(METHODS)}")
    return METHODS[name]


def method_config(recipe: Recipe, settings: Mapping[str, Any]) -> MethodConfig:
    """The configuration of the method that ``settings`` name: the recipe's for it, changed by the other settings.

    Raises:
        UserError: there is no such method, or it has no such setting or value.
    """
    method = method_named(settings.get("method", DEFAULT_METHOD))
    usual = {"method": method.name, **recipe.methods.get(method.name, {})}
    if "warmup_episodes" in method.config.model_fields:
        defaults = method.config.parse(usual, "search").model_dump()
        settings = with_fitting_warmup(settings, defaults, "warmup_episodes", "episodes")
    return method.config.parse({**usual, **settings}, "search")
