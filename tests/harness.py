"""What all parity tests share: environments, rollouts, and what the learner makes of them.

    algo = build(PPOConfig(), window=8)
    assert worst_mismatch(algo) < PARITY

Parity is measured on every valid step: the largest difference between the log-probability that
was recorded in the rollout and the one that the learner computes for it.
"""

import copy
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from rllib_attention import AttentionConfig, use_attention

# float32 through two layers of attention; what an off-by-one step or a stale key gives is 1e-2.
PARITY = 1e-5

VECTOR = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE = gym.spaces.Box(0, 255, (42, 42, 3), np.uint8)
DISCRETE = gym.spaces.Discrete(4)


class RandomEnv(gym.Env):
    """Random observations and rewards, episodes of ragged lengths.

    Args:
        config: `observation_space`, `action_space`, and `lengths` (lowest, highest), after which
            an episode terminates or is truncated, at random.
    """

    def __init__(self, config: dict[str, Any] | None = None):
        config = config or {}
        self.observation_space = config.get("observation_space", VECTOR)
        self.action_space = config.get("action_space", DISCRETE)
        self._lengths = config.get("lengths", (2, 60))

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._left = int(self.np_random.integers(*self._lengths))
        return self.observation_space.sample(), {}

    def step(self, action: Any):
        assert self.action_space.contains(action)
        self._left -= 1
        done, terminated = self._left <= 0, bool(self.np_random.integers(2))
        reward = float(self.np_random.normal())
        return (
            self.observation_space.sample(),
            reward,
            done and terminated,
            done and not terminated,
            {},
        )


class RandomMultiAgentEnv(MultiAgentEnv):
    """Agents that act at different rates, come late, and leave early.

    Args:
        config: `num_agents`, `mode` ("all", "turns", "random"), `lengths` of episodes, and
            `action_space`.
    """

    def __init__(self, config: dict[str, Any] | None = None):
        super().__init__()
        config = config or {}
        self.possible_agents = [f"agent_{i}" for i in range(config.get("num_agents", 3))]
        self._mode, self._lengths = config.get("mode", "all"), config.get("lengths", (20, 60))
        self.observation_spaces = dict.fromkeys(self.possible_agents, VECTOR)
        action_space = config.get("action_space", DISCRETE)
        self.action_spaces = dict.fromkeys(self.possible_agents, action_space)
        self._rng = np.random.default_rng(config.get("seed", 0))

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        self._time, self._length = 0, int(self._rng.integers(*self._lengths))
        self._leaves = dict.fromkeys(self.possible_agents, self._length)
        if self._mode == "random":
            self._leaves[self.possible_agents[-1]] = self._length // 2
        self.agents = list(self.possible_agents)
        return self._observe(), {}

    def step(self, actions: dict[str, int]):
        self._time += 1
        left = [a for a in self.agents if self._leaves[a] <= self._time]
        done = self._time >= self._length
        self.agents = [a for a in self.agents if a not in left]
        obs = self._observe() | {
            a: self._sample()
            for a in (self.possible_agents if done else left)
            if a in left or a in self.agents
        }
        rewards = {a: float(self._rng.normal()) for a in obs}
        terminateds = dict.fromkeys(left, True) | {"__all__": done}
        return obs, rewards, terminateds, {"__all__": False}, {}

    def _observe(self) -> dict[str, np.ndarray]:
        return {a: self._sample() for a in self._acting()}

    def _acting(self) -> list[str]:
        if not self.agents or self._mode == "all":
            return list(self.agents)
        if self._mode == "turns":
            return [self.agents[self._time % len(self.agents)]]
        chosen = [a for a in self.agents if self._rng.random() < 0.5]
        return chosen or [self.agents[0]]

    def _sample(self) -> np.ndarray:
        return self._rng.uniform(-1, 1, 3).astype(np.float32)


def prepare(config: AlgorithmConfig, env: Any = RandomEnv, **env_config: Any) -> AlgorithmConfig:
    """Sets a config up for quick parity runs: three sub-environments, small networks."""
    config.environment(env, env_config=env_config)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=3)
    config.rl_module(model_config={"fcnet_hiddens": [16], "head_fcnet_hiddens": []})
    config.debugging(seed=1, log_level="ERROR")
    return config


def learner_modules(config: AlgorithmConfig) -> MultiRLModule:
    """Builds a config's modules as a learner does, without an algorithm."""
    spaces = dict.fromkeys(config.policies, (VECTOR, DISCRETE))
    return config.get_multi_rl_module_spec(spaces=spaces).build()


def build(
    config: AlgorithmConfig, attention: AttentionConfig | None = None, **overrides: Any
) -> Algorithm:
    """Builds an algorithm with attention, small by default."""
    small = AttentionConfig(dim=16, num_heads=2, num_layers=2, window=5, ffn_dim=16, max_seq_len=16)
    return use_attention(config, attention or small, **overrides).build_algo()


def sample(algo: Algorithm, **kwargs: Any) -> list:
    """Samples fragments from all of an algorithm's runners."""
    remote = algo.config.num_env_runners > 0
    chunks = algo.env_runner_group.foreach_env_runner(
        lambda runner: runner.sample(**kwargs), local_env_runner=not remote
    )
    return [episode for chunk in chunks for episode in chunk]


def learner_batches(algo: Algorithm, episodes: list) -> Iterator[tuple[str, Any, dict]]:
    """Yields module id, module and train batch for each module, through the learner pipeline."""
    learner = algo.learner_group._learner
    batch = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=copy.deepcopy(episodes), shared_data={}
    )
    for module_id, module_batch in batch.items():
        yield module_id, learner.module[module_id].unwrapped(), module_batch


def mismatch(algo: Algorithm, episodes: list) -> float:
    """Returns the worst |log-probability in the learner - in the rollout| over all valid steps."""
    worst, count = 0.0, 0
    for _, module, batch in learner_batches(algo, episodes):
        with torch.no_grad():
            out = module.forward_train(batch)
        distribution = module.get_train_action_dist_cls().from_logits(
            out[Columns.ACTION_DIST_INPUTS]
        )
        difference = distribution.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
        valid = _under_current_weights(batch)
        worst = max(worst, float(difference[valid].abs().max()))
        count += difference[valid].numel()
    steps = sum(episode.agent_steps() for episode in episodes)
    assert count >= steps / 2, f"only {count} of {steps} steps were compared"
    return worst


def _under_current_weights(batch: dict) -> torch.Tensor:
    """Returns the valid steps whose action was drawn under the newest weights.

    In multi-agent episodes a step may begin (observation, action) in one fragment and end in the
    next, after a weight sync: that action is the old policy's, as recorded.
    """
    valid = batch[Columns.LOSS_MASK].bool()
    weights = batch[WEIGHTS_SEQ_NO]
    return valid & (weights == weights[valid].max())


def worst_mismatch(algo: Algorithm, *, iterations: int = 3, **kwargs: Any) -> float:
    """Samples, trains, samples: the worst mismatch, weight syncs in mid-episode included."""
    worst = mismatch(algo, sample(algo, **kwargs))
    for _ in range(iterations):
        algo.train()
        worst = max(worst, mismatch(algo, sample(algo, **kwargs)))
    return worst
