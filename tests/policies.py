"""Policies, and environments that write down what happens, for tests of acting."""

from typing import ClassVar

import gymnasium as gym
import numpy as np
import torch
import tree
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_attention import AttentionConfig, AttentionPolicy, use_attention

LENGTH = 30
TOLERANCE = 2e-5  # of float32 actions within bounds of up to 9
# Context 4: an episode goes on long after the window.
SMALL = AttentionConfig(dim=8, num_heads=2, num_layers=2, window=3, max_seq_len=10)
WITH_PAST = AttentionConfig.from_dict(SMALL.to_dict() | {"prev_actions": 2, "prev_rewards": 1})
VECTOR = Box(-1.0, 1.0, (3,), np.float32)


class Noise(gym.Env):
    """Random observations and rewards; it writes down what it shows and is told."""

    played: ClassVar[list] = []  # of each step since the last reset: [observation, action, reward]

    def __init__(self, config):
        self.observation_space, self.action_space = config["spaces"]
        self.observation_space.seed(0)
        self._rng = np.random.default_rng(0)

    def reset(self, *, seed=None, options=None):
        type(self).played = []
        return self._show(), {}

    def step(self, action):
        reward = float(self._rng.normal())
        self.played[-1][1:] = [tree.map_structure(np.copy, action), reward]
        return self._show(), reward, len(self.played) > LENGTH, False, {}

    def _show(self):
        obs = self.observation_space.sample()
        self.played.append([obs, None, None])
        return obs


def config_of(config, observations, actions, attention=WITH_PAST):
    config = config.environment(Noise, env_config={"spaces": (observations, actions)})
    config = config.env_runners(num_env_runners=0).debugging(seed=0)
    if not isinstance(config, PPOConfig):
        config.training(num_steps_sampled_before_learning_starts=1000)
    return use_attention(config, attention)


class TwoAgents(MultiAgentEnv):
    """Two agents with spaces of their own, which see and do what `Noise` writes down."""

    def __init__(self, config):
        super().__init__()
        actions = Box(-2.0, 3.0, (1,), np.float32)
        self._envs = {"a": Noise({"spaces": (VECTOR, Discrete(3))})}
        self._envs["b"] = BoxNoise({"spaces": (Box(-5.0, 5.0, (2,), np.float32), actions)})
        self.agents = self.possible_agents = list(self._envs)
        self.observation_spaces = {k: env.observation_space for k, env in self._envs.items()}
        self.action_spaces = {k: env.action_space for k, env in self._envs.items()}

    def reset(self, *, seed=None, options=None):
        return {k: env.reset()[0] for k, env in self._envs.items()}, {}

    def step(self, action_dict):
        results = {k: self._envs[k].step(action) for k, action in action_dict.items()}
        obs, rewards = ({k: r[i] for k, r in results.items()} for i in (0, 1))
        return obs, rewards, {"__all__": results["a"][2]}, {"__all__": False}, {}


class BoxNoise(Noise):
    """Another one, with a list of its own."""

    played: ClassVar[list] = []


def two_agents():
    """Two agents with a module and filters each: p plays a, q plays b, which has other spaces."""
    config = PPOConfig().environment(TwoAgents).debugging(seed=0)
    config.env_runners(
        num_env_runners=0,
        env_to_module_connector=lambda *args: MeanStdFilter(multi_agent=True),
    )
    return config.multi_agent(
        policies={"p", "q"},
        policy_mapping_fn=lambda agent, *args, **kwargs: "q" if agent == "b" else "p",
    )


def with_pieces(config, *pieces):
    return config.env_runners(env_to_module_connector=lambda *args: [piece() for piece in pieces])


def played_by(algo):
    """Plays an episode without exploration and returns (observation, action, reward) steps."""
    for piece in algo.env_runner._env_to_module[MeanStdFilter]:
        piece._update_stats = False
    algo.env_runner.sample(num_episodes=1, explore=False)
    return [step for step in Noise.played if step[2] is not None]


def replayed(policy, steps, *, start=0, told=0):
    """Returns the policy's actions in an episode; it acts from step `start` on.

    Up to step `told` it is told which actions were taken.
    """
    policy.reset(history=steps[:start])
    actions = []
    for step in range(start, len(steps)):
        past = {}
        if step > start:
            past["prev_reward"] = steps[step - 1][2]
            if step <= told:
                past["prev_action"] = steps[step - 1][1]
        actions.append(policy.act(steps[step][0], **past))
    return actions


def assert_same(actions, expected):
    for ours, theirs in zip(actions, expected, strict=True):
        tree.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE), ours, theirs
        )


def take_sides(algo, scale=0.5):
    """Gives fresh policies, which are close to uniform, outputs that depend on what they see.

    The larger the scale, the more so, and the more of rounding. Matrices change alone: with biases
    of its own a policy would prefer one action whatever it sees.
    """
    learned, acting = algo.learner_group._learner.module, algo.env_runner.module
    acting = dict(acting.items()) if isinstance(acting, MultiRLModule) else {None: acting}
    modules = [*dict(learned.items()).values(), *acting.values()]
    with torch.no_grad():
        for module in modules:
            for name, weight in module.unwrapped().named_parameters():
                noise = torch.Generator().manual_seed(sum(map(ord, name)))  # the same in both
                if weight.dim() > 1:
                    weight.add_(scale * torch.randn(weight.shape, generator=noise))


def differ(actions, expected):
    try:
        assert_same(actions, expected)
    except AssertionError:
        return True
    return False


NESTED = Dict({"a": Discrete(3), "b": Box(-2.0, 3.0, (2,), np.float32)})
CASES = {
    "discrete": lambda: config_of(PPOConfig(), VECTOR, Discrete(5)),
    "multi-discrete": lambda: config_of(PPOConfig(), VECTOR, MultiDiscrete([3, 4])),
    "box": lambda: config_of(PPOConfig(), VECTOR, Box(-2.0, 5.0, (2,), np.float32)),
    "dict-actions": lambda: config_of(PPOConfig(), VECTOR, NESTED),
    "tuple-actions": lambda: config_of(PPOConfig(), VECTOR, Tuple([Discrete(3), Discrete(2)])),
    "image": lambda: config_of(PPOConfig(), Box(0, 255, (42, 42, 3), np.uint8), Discrete(4), SMALL),
    "flattened": lambda: config_of(
        with_pieces(PPOConfig(), FlattenObservations),
        Dict({"x": Discrete(4), "y": VECTOR}),
        Box(-1.0, 1.0, (1,), np.float32),
    ),
    "filtered": lambda: config_of(
        with_pieces(PPOConfig(), MeanStdFilter), VECTOR, Box(-1.0, 1.0, (1,), np.float32)
    ),
    "sac": lambda: config_of(SACConfig(), VECTOR, Box(-2.0, 5.0, (2,), np.float32)),
    "dqn": lambda: config_of(DQNConfig(), VECTOR, Discrete(5)),
}


def random_policy(attention=WITH_PAST, observations=VECTOR, actions=None):
    torch.manual_seed(0)
    actions = Box(-9.0, 9.0, (2,), np.float32) if actions is None else actions
    policy = AttentionPolicy.from_spaces(attention, observations, actions)
    with torch.no_grad():  # large, so that the past matters
        for weight in policy.module.parameters():
            weight += 0.1 * torch.randn_like(weight)
        for weight in policy.module.pi.parameters():  # no action is clipped
            weight *= 0.3
    return policy


def random_steps(number, seed, policy):
    rng = np.random.default_rng(seed)
    policy.action_space.seed(seed)
    obs = rng.uniform(-1.0, 1.0, (number, 3)).astype(np.float32)
    rewards = rng.normal(size=number)
    return [(o, policy.action_space.sample(), r) for o, r in zip(obs, rewards, strict=True)]
