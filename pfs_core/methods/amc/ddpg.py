"""A small agent for one continuous action: deep deterministic policy gradient (Lillicrap et al. 2016), as AMC uses it.

Libraries of reinforcement learning bring their own environments, loops and checkpoints, and none of them has AMC's
three departures: noise from a truncated normal distribution that decays by the episode, one reward given to all steps
of an episode, and a moving average taken from rewards. The agent below is smaller than what would fit it to one.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN, BATCH, TAU, BASELINE = 300, 64, 0.01, 0.5
"""Of the paper and its code: width of the layers, steps learned from at once, the share of the networks that their slow
copies take on a step, and that of the new rewards in their moving average."""


class Actor(nn.Module):
    """States [n, s] to actions [n, 1] in [``lowest``, 1]."""

    def __init__(self, size: int, lowest: float) -> None:
        super().__init__()
        self.lowest = lowest
        self.layers = nn.Sequential(
            nn.Linear(size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )

    def forward(self, states: Tensor) -> Tensor:
        """The actions."""
        return self.lowest + (1 - self.lowest) * self.layers(states).sigmoid()


class Critic(nn.Module):
    """States [n, s] and actions [n, 1] to the rewards [n, 1] that they are expected to bring."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size + 1, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """The expected rewards, with no discount."""
        return self.layers(torch.cat([states, actions], 1))


class Agent:
    """Acts, remembers and learns; all that is random comes from ``random``.

    Args:
        size: numbers of a state.
        lowest: the smallest action; the largest is 1.
        actor_lr: Adam's learning rate of the actor.
        critic_lr: and of the critic.
        memory: steps that are remembered.
        random: on the CPU, where the agent computes.
    """

    def __init__(
        self, size: int, lowest: float, actor_lr: float, critic_lr: float, memory: int, random: torch.Generator
    ) -> None:
        self._random, self._lowest = random, lowest
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=random)))
            self._actor, self._critic = Actor(size, lowest), Critic(size)
        self._slow_actor = copy.deepcopy(self._actor).requires_grad_(False)
        self._slow_critic = copy.deepcopy(self._critic).requires_grad_(False)
        self._actor_optimiser = torch.optim.Adam(self._actor.parameters(), actor_lr)
        self._critic_optimiser = torch.optim.Adam(self._critic.parameters(), critic_lr)
        self._steps = torch.zeros(memory, 2 * size + 3)  # state, action, reward, next state, whether it is the last
        self._filled, self._next = 0, 0
        self._baseline: float | None = None

    def explore(self) -> float:
        """An action at random."""
        return self._lowest + (1 - self._lowest) * float(torch.rand(1, generator=self._random))

    @torch.no_grad()
    def act(self, state: Sequence[float], noise: float) -> float:
        """The actor's action, or one near it: from a normal distribution, truncated to the actions that there are."""
        action = self._actor(torch.tensor([state]))
        if noise > 0:
            mean = float(action)
            nn.init.trunc_normal_(action, mean, noise, self._lowest, 1.0, generator=self._random)
        return float(action)

    def remember(self, states: Sequence[Sequence[float]], actions: Sequence[float], reward: float) -> None:
        """An episode; its reward is that of every step."""
        for i, (state, action) in enumerate(zip(states, actions, strict=True)):
            last = i + 1 == len(states)
            following = state if last else states[i + 1]
            self._steps[self._next] = torch.tensor([*state, action, reward, *following, float(last)])
            self._next = (self._next + 1) % len(self._steps)
            self._filled = min(self._filled + 1, len(self._steps))

    def learn(self) -> None:
        """A step of critic and actor on remembered steps."""
        chosen = self._steps[torch.randint(self._filled, (BATCH,), generator=self._random)]
        size = (chosen.shape[1] - 3) // 2
        states, actions, rewards, following, last = chosen.split([size, 1, 1, size, 1], 1)
        mean = float(rewards.mean())
        self._baseline = mean if self._baseline is None else BASELINE * mean + (1 - BASELINE) * self._baseline
        with torch.no_grad():
            later = self._slow_critic(following, self._slow_actor(following))
            wanted = rewards - self._baseline + (1 - last) * later
        self._critic_optimiser.zero_grad()
        F.mse_loss(self._critic(states, actions), wanted).backward()
        self._critic_optimiser.step()
        self._actor_optimiser.zero_grad()
        (-self._critic(states, self._actor(states)).mean()).backward()
        self._actor_optimiser.step()
        for slow, network in ((self._slow_actor, self._actor), (self._slow_critic, self._critic)):
            torch._foreach_lerp_(list(slow.parameters()), list(network.parameters()), TAU)

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return {
            "networks": [network.state_dict() for network in self._networks()],
            "optimisers": [self._actor_optimiser.state_dict(), self._critic_optimiser.state_dict()],
            "memory": [self._steps, self._filled, self._next],
            "baseline": self._baseline,
            "random": self._random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        for network, weights in zip(self._networks(), state["networks"], strict=True):
            network.load_state_dict(weights)
        self._actor_optimiser.load_state_dict(state["optimisers"][0])
        self._critic_optimiser.load_state_dict(state["optimisers"][1])
        self._steps, self._filled, self._next = state["memory"]
        self._baseline = state["baseline"]
        self._random.set_state(state["random"])

    def _networks(self) -> list[nn.Module]:
        return [self._actor, self._critic, self._slow_actor, self._slow_critic]
