"""AMC (He et al. 2018, "AMC: AutoML for Model Compression and Acceleration on Mobile Devices").

A network is trained. Then an agent walks its channel groups, episode by episode, and says how much each keeps; channels
are kept by the L1 norm of the weights that read them. What it earns is the accuracy of the cut network on validation
images, with no further training. As everywhere in this project only prunable groups lose channels.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from pfs_core.channels import ChannelGraph, slice_weights
from pfs_core.config.recipes import AmcRecipe
from pfs_core.data import ImageSplit
from pfs_core.data.augment import Normalise
from pfs_core.methods.amc.ddpg import Agent
from pfs_core.methods.amc.environment import STATE, Walk
from pfs_core.methods.context import Start
from pfs_core.methods.result import Chosen
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.device import autocast, resolve_precision
from pfs_core.runtime.progress import Record, TimeLeft, say
from pfs_core.structure.budget_cut import check_reachable
from pfs_core.structure.inherited_weights import Trained
from pfs_core.training.checkpoints import Checkpoints, Stage
from pfs_core.training.evaluate import accuracy
from pfs_core.training.pretrain import as_training, train_first

ADVICE = "a lower search.lr or search.precision=fp32"
_BATCH = 500


def allocate(begun: Start, data: ImageSplit, recipe: AmcRecipe, seed: int, record: Record, kept: Checkpoints) -> Chosen:
    """Train the network, let the agent learn, and take the best widths that it met.

    Raises:
        UserError: the budget cannot be reached with every group at ``recipe.lowest``, or the training diverged.
    """
    check_reachable(begun.graph, begun.widths, begun.budget, floor=recipe.lowest)
    first = train_first(begun.model, "search amc, training,", data, as_training(recipe), seed, record, kept, ADVICE)
    judge = Judge(begun.model, begun.graph.at(begun.widths), data, recipe)
    walk = Walk(begun.model, begun.graph, begun.widths, begun.budget, recipe.lowest)
    best, history = learn(walk, judge, recipe, seed, record, first.next)
    forward = recipe.episodes * judge.images
    cost = {
        "pretrain": first.cost,
        "search": stage_cost(data.device, kept.spent(), forward, 0, first.spent),
    }
    facts = {"validation_accuracy": best["reward"], "pretrained_accuracy": first.history[-1]["val_accuracy"]}
    gates = _as_gates(walk.gates(best["widths"]), judge.norms)
    every = {name: torch.arange(len(scores)) for name, scores in gates.items()}
    return Chosen(gates, history, cost, facts, Trained(first.weights, every), first.history)


def learn(
    walk: Walk,
    reward: Callable[[Mapping[str, int]], float],
    recipe: AmcRecipe,
    seed: int,
    record: Record,
    kept: Stage | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The episodes.

    Args:
        walk: the groups.
        reward: of the widths of all groups, at the budget.
        recipe: see :class:`AmcRecipe`.
        seed: of the agent.
        record: called with every row of the history.
        kept: the state on the way.

    Returns:
        The best ``reward`` with the ``widths`` that the agent chose for it, and a row an episode.
    """
    count = len(walk.groups)
    random = torch.Generator().manual_seed(seed)
    agent = Agent(STATE, recipe.lowest, recipe.actor_lr, recipe.critic_lr, 100 * count, random)
    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {"reward": -1.0, "widths": {}}
    if state := kept.load() if kept else None:
        agent.restore(state["agent"])
        history, best = state["history"], state["best"]
        for row in history:
            record(row)
    left = TimeLeft(len(history))
    for episode in range(len(history) + 1, recipe.episodes + 1):
        at_random = episode <= recipe.warmup_episodes
        noise = recipe.noise * recipe.noise_decay ** (episode - recipe.warmup_episodes)
        chosen: dict[str, int] = {}
        states, actions, last = [], [], 1.0
        for name in walk.groups:
            seen = walk.state(chosen, last)
            wanted = agent.explore() if at_random else agent.act(seen, noise)
            chosen[name] = walk.width(chosen, wanted)
            last = walk.share(chosen)
            states.append(seen)
            actions.append(last)
        earned = reward(walk.filled(chosen))
        agent.remember(states, actions, earned)
        if not at_random:
            for _ in walk.groups:
                agent.learn()
        if earned > best["reward"]:
            best = {"reward": earned, "widths": chosen}
        history.append({"episode": episode, "reward": earned, "best_reward": best["reward"]})
        record(history[-1])
        if episode % 10 == 0 or episode == recipe.episodes:
            say(
                f"search amc episode {episode}/{recipe.episodes}  reward {earned:.4f}  best {best['reward']:.4f}  "
                f"left {left(episode, recipe.episodes)}"
            )
        if kept and kept.due(episode):
            kept.save(episode, {"agent": agent.state(), "history": history, "best": best})
    return best, history


class Judge:
    """The accuracy of a trained network cut to some widths, on validation images, in evaluation mode.

    Attributes:
        norms: L1 norm of the weights that read each channel, ``{group: float32 [gates]}``.
        images: that go through the network for one verdict.

    Args:
        model: the trained network; it stays as it is.
        graph: its channel graph.
        data: the images.
        recipe: says how many validate, and how many BatchNorm's statistics are taken from.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, data: ImageSplit, recipe: AmcRecipe) -> None:
        self._model, self._graph, self._device = model.eval(), graph, data.device
        self._precision = resolve_precision(recipe.precision, data.device)
        self._normalise = Normalise(data.info, data.device, torch.channels_last)
        judging = data.sample("validation", recipe.reward_rows or len(data.parts["validation"]))
        self._labels, self._batches = judging.labels, list(judging.in_order(_BATCH))
        calibrating = data.sample("train", recipe.recalibrate)
        self._calibration = list(calibrating.in_order(_BATCH)) if recipe.recalibrate else []
        self.images = len(self._labels) + sum(map(len, self._calibration))
        self.norms = input_norms(model, graph)

    @torch.no_grad()
    def __call__(self, widths: Mapping[str, int]) -> float:
        """The accuracy at these widths of the prunable groups."""
        kept = {
            name: norms.argsort(descending=True, stable=True)[: widths[name] // self._graph.group(name).blocks]
            for name, norms in self.norms.items()
        }
        cut = slice_weights(self._model, self._graph, {name: part.sort().values for name, part in kept.items()})
        cut.to(memory_format=torch.channels_last)
        with autocast(self._device, self._precision):
            if self._calibration:
                update_bn(map(self._normalise, self._calibration), cut)
            cut.eval()
            predictions = torch.cat([cut(self._normalise(batch)).argmax(1) for batch in self._batches])
        return accuracy(predictions, self._labels)


@torch.no_grad()
def input_norms(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """The L1 norm of the weights that read each channel, summed over all layers: ``{group: float32 [gates]}``."""
    norms = {group.name: torch.zeros(group.gate_count) for group in graph.prunable()}
    widths = graph.widths()
    for axis in graph.axes:
        if axis.role != "reads":
            continue
        sizes = _input_sizes(model.get_submodule(axis.module))
        first = 0
        for name, repeat in axis.segments:
            last = first + widths[name] * repeat
            if name in norms:
                group = graph.group(name)
                channels = sizes[first:last].view(group.width, repeat).sum(1)
                norms[name] += channels.view(group.blocks, group.gate_count).sum(0)
            first = last
    return norms


def _input_sizes(module: Any) -> Tensor:
    """L1 norm of what a convolution or linear layer reads of each of its inputs: float32 [inputs]."""
    weight = module.weight.detach().abs().float().cpu()
    if getattr(module, "transposed", False):
        return weight.flatten(1).sum(1)
    groups = getattr(module, "groups", 1)
    return weight.reshape(groups, len(weight) // groups, weight.shape[1], -1).sum((1, 3)).flatten()


def _as_gates(falling: Mapping[str, Tensor], norms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gates of each group given to its channels by their norms, the largest gate to the largest norm."""
    return {name: gates[norms[name].argsort(descending=True, stable=True).argsort()] for name, gates in falling.items()}
