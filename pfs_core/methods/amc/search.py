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
from pfs_core.data import ImageSplit
from pfs_core.data.augment import Normalise
from pfs_core.methods.amc.config import AmcConfig
from pfs_core.methods.amc.ddpg import Agent
from pfs_core.methods.amc.environment import STATE, PruningEnv
from pfs_core.methods.context import SearchContext
from pfs_core.methods.result import MethodResult
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.device import autocast, resolve_precision
from pfs_core.runtime.progress import Record, TimeLeft, say
from pfs_core.structure.budget_cut import check_reachable
from pfs_core.structure.inherited_weights import Trained
from pfs_core.training.checkpoints import CheckpointStage
from pfs_core.training.evaluate import accuracy
from pfs_core.training.pretrain import pretrain

ADVICE = "a lower search.lr or search.precision=fp32"
_BATCH = 500


def run(context: SearchContext) -> MethodResult:
    """Train the network, let the agent learn, and take the best widths that it met.

    Raises:
        UserError: the budget cannot be reached with every group at ``config.lowest``, or the training diverged.
    """
    config, data = context.config_as(AmcConfig), context.data
    check_reachable(context.graph, context.widths, context.budget, floor=config.lowest)
    pretrained = pretrain(
        context.model,
        "search amc, training,",
        data,
        config.as_training(),
        context.seed,
        context.record,
        context.checkpoints,
        ADVICE,
    )
    reward = AccuracyReward(context.model, context.graph.with_widths(context.widths), data, config)
    env = PruningEnv(context.model, context.graph, context.widths, context.budget, config.lowest)
    best, history = learn(env, reward, config, context.seed, context.record, pretrained.next)
    forward = config.episodes * reward.images
    elapsed = context.checkpoints.elapsed()
    gates = _as_gates(env.gates(best["widths"]), reward.norms)
    return MethodResult(
        gates=gates,
        history=history,
        cost={
            "pretrain": pretrained.cost,
            "search": stage_cost(data.device, elapsed, forward, 0, pretrained.spent),
        },
        facts={
            "validation_accuracy": best["reward"],
            "pretrained_accuracy": pretrained.history[-1]["val_accuracy"],
        },
        trained=Trained(pretrained.weights, {name: torch.arange(len(scores)) for name, scores in gates.items()}),
        pretraining=pretrained.history,
    )


def learn(
    env: PruningEnv,
    reward: Callable[[Mapping[str, int]], float],
    config: AmcConfig,
    seed: int,
    record: Record,
    checkpoints: CheckpointStage | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The episodes.

    Args:
        env: the groups.
        reward: of the widths of all groups, at the budget.
        config: see :class:`AmcConfig`.
        seed: of the agent.
        record: called with every row of the history.
        checkpoints: the state on the way.

    Returns:
        The best ``reward`` with the ``widths`` that the agent chose for it, and a row an episode.
    """
    count = len(env.groups)
    random = torch.Generator().manual_seed(seed)
    agent = Agent(STATE, config.lowest, config.actor_lr, config.critic_lr, 100 * count, random)
    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {"reward": -1.0, "widths": {}}
    if state := checkpoints.load() if checkpoints else None:
        agent.load_state_dict(state["agent"])
        history, best = state["history"], state["best"]
        for row in history:
            record(row)
    left = TimeLeft(len(history))
    for episode in range(len(history) + 1, config.episodes + 1):
        at_random = episode <= config.warmup_episodes
        noise = config.noise * config.noise_decay ** (episode - config.warmup_episodes)
        chosen: dict[str, int] = {}
        states, actions, last = [], [], 1.0
        for name in env.groups:
            seen = env.state(chosen, last)
            wanted = agent.explore() if at_random else agent.act(seen, noise)
            chosen[name] = env.width(chosen, wanted)
            last = env.share(chosen)
            states.append(seen)
            actions.append(last)
        earned = reward(env.filled(chosen))
        agent.remember(states, actions, earned)
        if not at_random:
            for _ in env.groups:
                agent.learn()
        if earned > best["reward"]:
            best = {"reward": earned, "widths": chosen}
        history.append({"episode": episode, "reward": earned, "best_reward": best["reward"]})
        record(history[-1])
        if episode % 10 == 0 or episode == config.episodes:
            say(
                f"search amc episode {episode}/{config.episodes}  reward {earned:.4f}  best {best['reward']:.4f}  "
                f"left {left(episode, config.episodes)}"
            )
        if checkpoints and checkpoints.due(episode):
            checkpoints.save(episode, {"agent": agent.state_dict(), "history": history, "best": best})
    return best, history


class AccuracyReward:
    """The accuracy of a trained network cut to some widths, on validation images, in evaluation mode.

    Attributes:
        norms: L1 norm of the weights that read each channel, ``{group: float32 [gates]}``.
        images: that go through the network for one verdict.

    Args:
        model: the trained network; it stays as it is.
        graph: its channel graph.
        data: the images.
        config: says how many validate, and how many BatchNorm's statistics are taken from.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, data: ImageSplit, config: AmcConfig) -> None:
        self._model, self._graph, self._device = model.eval(), graph, data.device
        self._precision = resolve_precision(config.precision, data.device)
        self._normalise = Normalise(data.info, data.device, torch.channels_last)
        judging = data.sample("validation", config.reward_rows or len(data.parts["validation"]))
        self._labels, self._batches = judging.labels, list(judging.in_order(_BATCH))
        calibrating = data.sample("train", config.recalibrate)
        self._calibration = list(calibrating.in_order(_BATCH)) if config.recalibrate else []
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
