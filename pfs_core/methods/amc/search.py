"""AMC (He et al. 2018, "AMC: AutoML for Model Compression and Acceleration on Mobile Devices").

A network is trained. Then, in every episode, an agent visits its channel groups and decides what share of its channels
each one keeps: those that are read by the weights of the largest L1 norm. The reward is the accuracy of the cut network
on validation images, without further training. As with every method here, only prunable groups lose channels.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pfs_core.channels import ChannelGraph, slice_weights
from pfs_core.channels.elements import AxisTensor, features
from pfs_core.data import ImageSplit
from pfs_core.data.augment import Normalise
from pfs_core.data.images import Images
from pfs_core.methods.amc.config import AmcConfig
from pfs_core.methods.amc.ddpg import Agent
from pfs_core.methods.amc.environment import STATE, PruningEnv
from pfs_core.methods.context import ADVICE, SearchContext
from pfs_core.methods.result import MethodResult
from pfs_core.nn.batch_statistics import recompute_statistics
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.device import autocast, resolve_precision
from pfs_core.runtime.progress import Record, TimeLeft
from pfs_core.structure.budget_cut import check_reachable
from pfs_core.structure.cut_rules import CutRules
from pfs_core.structure.inherited_weights import Trained
from pfs_core.training.checkpoints import CheckpointStage
from pfs_core.training.evaluate import accuracy, evaluation_batch
from pfs_core.training.memory_layout import layout_for, with_layout
from pfs_core.training.pretrain import pretrain

logger = logging.getLogger(__package__)


def run(context: SearchContext) -> MethodResult:
    """Train the network, let the agent learn, and return the widths of the best episode as gates.

    Raises:
        UserError: the budget cannot be reached with every group at ``config.lowest``, or the training diverged.
    """
    config, data = context.config_as(AmcConfig), context.data
    check_reachable(context.graph, context.widths, context.budget, CutRules(floor=config.lowest))
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
    best, history = learn(env, reward, config, context.seed, context.record, pretrained.search_checkpoints)
    forward = config.episodes * reward.images
    elapsed = context.checkpoints.elapsed()
    gates = _as_gates(env.gates(best["widths"]), reward.norms)
    return MethodResult(
        gates=gates,
        history=history,
        cost={
            "pretrain": pretrained.cost,
            "search": stage_cost(data.device, elapsed, forward, 0, pretrained.elapsed),
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
    """Run the episodes.

    Args:
        env: the channel groups.
        reward: returns the reward of the widths of all groups.
        config: the settings of AMC.
        seed: the seed of the agent.
        record: called with every row of the history.
        checkpoints: where to resume from and save to; None for no checkpoints.

    Returns:
        The best episode, as its ``reward`` and the ``widths`` that the agent chose; and one row per episode.
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
    time_left = TimeLeft(len(history))
    for episode in range(len(history) + 1, config.episodes + 1):
        at_random = episode <= config.warmup_episodes
        noise = config.noise * config.noise_decay ** (episode - config.warmup_episodes)
        chosen: dict[str, int] = {}
        states, actions, last = [], [], 1.0
        for name in env.groups:
            observation = env.state(chosen, last)
            action = agent.explore() if at_random else agent.act(observation, noise)
            chosen[name] = env.width(chosen, action)
            # The agent learns from what was done, which may be less than it wanted.
            last = env.share(chosen)
            states.append(observation)
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
            logger.info(
                f"search amc episode {episode}/{config.episodes}  reward {earned:.4f}  best {best['reward']:.4f}  "
                f"left {time_left(episode, config.episodes)}"
            )
        if checkpoints and checkpoints.due(episode):
            checkpoints.save(episode, {"agent": agent.state_dict(), "history": history, "best": best})
    return best, history


class AccuracyReward:
    """The accuracy on validation images of a trained network that is cut to given widths.

    Attributes:
        norms: L1 norm of the weights that read each channel, ``{group: float32 [gates]}``.
        images: how many images go through the network for one reward.

    Args:
        model: the trained network, which is put into evaluation mode.
        graph: the channel graph of the network.
        data: the images.
        config: the settings of AMC.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, data: ImageSplit, config: AmcConfig) -> None:
        self._model, self._graph, self._device = model.eval(), graph, data.device
        self._precision = resolve_precision(config.precision, data.device)
        self._layout = layout_for(model, data.input_shape, self._precision)
        self._normalise = Normalise(data.info, data.device, self._layout)
        # The same images for every candidate: else the best reward would be that of the easiest images.
        validation = data.sample("validation", config.reward_rows or len(data.parts["validation"]))
        most = evaluation_batch(data.input_shape)
        self._labels, self._batches = validation.labels, list(validation.in_order(most))
        self._calibration = _equal_batches(data.sample("train", config.recalibrate), most) if config.recalibrate else []
        self.images = len(self._labels) + sum(map(len, self._calibration))
        self.norms = input_norms(model, graph)

    @torch.no_grad()
    def __call__(self, widths: Mapping[str, int]) -> float:
        """Return the accuracy at these widths.

        Args:
            widths: the width of every prunable group; others are ignored.
        """
        selected = {}
        for name, norms in self.norms.items():
            count = widths[name] // self._graph.group(name).per_gate
            selected[name] = norms.argsort(descending=True, stable=True)[:count].sort().values
        cut = with_layout(slice_weights(self._model, self._graph, selected), self._layout)
        with autocast(self._device, self._precision):
            if self._calibration:
                # Without the removed channels, the inputs of the BatchNorms behind them are distributed otherwise.
                recompute_statistics(cut, [self._normalise(batch) for batch in self._calibration])
            predictions = torch.cat([cut(self._normalise(batch)).argmax(1) for batch in self._batches])
        return accuracy(predictions, self._labels)


def _equal_batches(images: Images, most: int) -> list[Tensor]:
    """Return images in as few batches of at most ``most`` as there can be, all of one size or one less.

    The statistics of a batch weigh as much as those of another, however few images it has.
    """
    number = math.ceil(len(images) / most)
    return [part for batch in images.in_order(len(images)) for part in batch.tensor_split(number)]


@torch.no_grad()
def input_norms(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return the L1 norm of the weights that read each channel, summed over all layers that do.

    Returns:
        ``{group: float32 [gates]}``; a gate of several channels has the sum of their norms.
    """
    norms = {group.name: torch.zeros(group.gate_count) for group in graph.prunable()}
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    widths = graph.widths()
    for axis in graph.axes:
        if axis.role != "reads":
            continue
        of_inputs = torch.zeros(features(axis.segments, widths))
        for on in axis.tensors:
            of_inputs += _norms_by_input(tensors[on.name], on)
        for part, place in axis.slices(widths):
            if part.group in norms:
                group = graph.group(part.group)
                norms[part.group] += of_inputs[place].view(-1, group.gate_count, group.unit * part.repeat).sum(2).sum(0)
    return norms


def _norms_by_input(weight: Tensor, inputs: AxisTensor) -> Tensor:
    """Return the L1 norm of the weights of a layer by input, float32 [inputs]; ``inputs`` says where they are."""
    # A gain of the inputs alone has no rows of its own.
    columns: Tensor = torch.atleast_2d(weight.detach().abs().float().cpu()).movedim(inputs.dim - weight.dim(), 1)
    if len(columns) == 1:
        columns = columns.repeat_interleave(inputs.shares, 0)
    # Of a grouped convolution, [C', C / groups, ...], each group of rows reads inputs of its own.
    rows = len(columns) // inputs.shares
    return columns.reshape(inputs.shares, rows, columns.shape[1], -1).sum((1, 3)).flatten()


def _as_gates(falling: Mapping[str, Tensor], norms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Assign the gates of each group to its channels by norm, the largest gate to the channel of the largest norm."""
    gates = {}
    for name, values in falling.items():
        ranks = norms[name].argsort(descending=True, stable=True).argsort()
        gates[name] = values[ranks]
    return gates
