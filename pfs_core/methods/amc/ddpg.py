"""A small agent for one continuous action: deep deterministic policy gradient (Lillicrap et al. 2016), as AMC uses it.

Libraries of reinforcement learning bring their own environments, loops and checkpoints, and none of them has the three
things in which AMC departs from the algorithm: noise from a truncated normal distribution that decays with every
episode, one reward that all steps of an episode share, and a moving average that is subtracted from the rewards. The
agent below is shorter than an adapter to such a library would be.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Values of AMC's paper and of its authors' code.
HIDDEN = 300
"""Width of the hidden layers."""
BATCH = 64
"""Remembered steps that are learned from at once."""
TAU = 0.01
"""Share by which the slow copy of a network moves towards it per learning step."""
BASELINE = 0.5
"""Share of the new rewards in the moving average of rewards."""


class Actor(nn.Module):
    """Map states, float [n, s], to actions, float [n, 1] in [``lowest``, 1]."""

    def __init__(self, size: int, lowest: float) -> None:
        super().__init__()
        self.lowest = lowest
        self.layers = nn.Sequential(
            nn.Linear(size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )

    def forward(self, states: Tensor) -> Tensor:
        """Return the actions."""
        out: Tensor = self.lowest + (1 - self.lowest) * self.layers(states).sigmoid()
        return out


class Critic(nn.Module):
    """Map states, float [n, s], and actions, float [n, 1], to the rewards, float [n, 1], that they should bring."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size + 1, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the expected rewards, without a discount."""
        out: Tensor = self.layers(torch.cat([states, actions], 1))
        return out


class Agent:
    """An agent that acts, remembers and learns, on the CPU.

    Args:
        size: how many numbers a state has.
        lowest: the smallest action; the largest is 1.
        actor_lr: Adam's learning rate of the actor.
        critic_lr: Adam's learning rate of the critic.
        memory: how many steps the agent remembers; newer steps then replace the oldest ones.
        random: the source of all randomness of the agent, initial weights included.
    """

    def __init__(
        self, size: int, lowest: float, actor_lr: float, critic_lr: float, memory: int, random: torch.Generator
    ) -> None:
        self._random, self._lowest = random, lowest
        with torch.random.fork_rng(devices=[]):
            # Layers draw their weights from torch's global generator only, so it is seeded for them here.
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=random)))
            self._actor, self._critic = Actor(size, lowest), Critic(size)
        self._slow_actor = copy.deepcopy(self._actor).requires_grad_(False)
        self._slow_critic = copy.deepcopy(self._critic).requires_grad_(False)
        self._actor_optimiser = torch.optim.Adam(self._actor.parameters(), actor_lr)
        self._critic_optimiser = torch.optim.Adam(self._critic.parameters(), critic_lr)
        # One row per step: state, action, reward, next state, and 1 if it is the last step of its episode.
        self._steps = torch.zeros(memory, 2 * size + 3)
        self._filled, self._next = 0, 0
        self._baseline: float | None = None

    def explore(self) -> float:
        """Return an action drawn evenly from all actions."""
        return self._lowest + (1 - self._lowest) * float(torch.rand(1, generator=self._random))

    @torch.no_grad()
    def act(self, state: Sequence[float], noise: float) -> float:
        """Return the actor's action, or one near it.

        Args:
            state: what the agent sees.
            noise: standard deviation of the normal distribution around the actor's action, truncated to the range of
                actions, that the action is drawn from; 0 returns the actor's action itself.
        """
        action = self._actor(torch.tensor([state]))
        if noise > 0:
            mean = float(action)
            nn.init.trunc_normal_(action, mean, noise, self._lowest, 1.0, generator=self._random)
        return float(action)

    def remember(self, states: Sequence[Sequence[float]], actions: Sequence[float], reward: float) -> None:
        """Remember an episode, the reward of which every step is given.

        Args:
            states: the state before each action.
            actions: the actions.
            reward: the reward of the whole episode.
        """
        for i, (state, action) in enumerate(zip(states, actions, strict=True)):
            last = i + 1 == len(states)
            next_state = state if last else states[i + 1]
            self._steps[self._next] = torch.tensor([*state, action, reward, *next_state, float(last)])
            self._next = (self._next + 1) % len(self._steps)
            self._filled = min(self._filled + 1, len(self._steps))

    def learn(self) -> None:
        """Take one optimiser step of the critic and one of the actor, on a batch of remembered steps."""
        batch = self._steps[torch.randint(self._filled, (BATCH,), generator=self._random)]
        size = (batch.shape[1] - 3) // 2
        states, actions, rewards, next_states, last = batch.split([size, 1, 1, size, 1], 1)
        # AMC subtracts a moving average from the rewards, which reduces the variance of the gradients.
        mean = float(rewards.mean())
        self._baseline = mean if self._baseline is None else BASELINE * mean + (1 - BASELINE) * self._baseline
        with torch.no_grad():
            later = self._slow_critic(next_states, self._slow_actor(next_states))
            target = rewards - self._baseline + (1 - last) * later
        self._critic_optimiser.zero_grad()
        F.mse_loss(self._critic(states, actions), target).backward()
        self._critic_optimiser.step()
        self._actor_optimiser.zero_grad()
        (-self._critic(states, self._actor(states)).mean()).backward()
        self._actor_optimiser.step()
        for slow, network in ((self._slow_actor, self._actor), (self._slow_critic, self._critic)):
            torch._foreach_lerp_(list(slow.parameters()), list(network.parameters()), TAU)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, memory and random generator included."""
        return {
            "networks": [network.state_dict() for network in self._networks()],
            "optimisers": [self._actor_optimiser.state_dict(), self._critic_optimiser.state_dict()],
            "memory": [self._steps, self._filled, self._next],
            "baseline": self._baseline,
            "random": self._random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from the result of :meth:`state_dict`."""
        for network, weights in zip(self._networks(), state["networks"], strict=True):
            network.load_state_dict(weights)
        self._actor_optimiser.load_state_dict(state["optimisers"][0])
        self._critic_optimiser.load_state_dict(state["optimisers"][1])
        self._steps, self._filled, self._next = state["memory"]
        self._baseline = state["baseline"]
        self._random.set_state(state["random"])

    def _networks(self) -> list[nn.Module]:
        return [self._actor, self._critic, self._slow_actor, self._slow_critic]
