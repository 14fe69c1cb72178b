"""Environments with ragged episodes, and rollouts of the old stack without a cluster."""

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.evaluation.rollout_worker import RolloutWorker
from ray.rllib.policy.rnn_sequencing import pad_batch_to_sequences_of_same_size
from ray.rllib.policy.sample_batch import SampleBatch
from ray.rllib.policy.torch_policy_v2 import TorchPolicyV2

import rllib_attention  # noqa: F401  (registers the model)

Box, Discrete = gym.spaces.Box, gym.spaces.Discrete
VECTOR = Box(-1, 1, (3,), np.float32)
OBSERVATION_SPACES = {
    "box": VECTOR,
    "discrete": Discrete(5),
    "multi_discrete": gym.spaces.MultiDiscrete([3, 2]),
    "dict": gym.spaces.Dict({"b": Discrete(3), "a": VECTOR}),
    "tuple": gym.spaces.Tuple((VECTOR, gym.spaces.Dict({"c": gym.spaces.MultiDiscrete([2, 4])}))),
    "image": Box(0, 255, (6, 6, 2), np.uint8),
    "float_image": Box(0, 1, (6, 6, 2), np.float32),
}
ACTION_SPACES = {
    "discrete": Discrete(3),
    "multi_discrete": gym.spaces.MultiDiscrete([3, 2]),
    "box": Box(-1, 1, (2,), np.float32),
    "tuple": gym.spaces.Tuple((Discrete(3), Box(-1, 1, (2,), np.float32))),
    "dict": gym.spaces.Dict({"b": gym.spaces.MultiDiscrete([2, 3]), "a": Discrete(2)}),
}


class RaggedEnv(gym.Env):
    """Random observations and rewards, episodes of 1 to 30 steps."""

    def __init__(self, config: dict):
        self.observation_space = config.get("observation_space", VECTOR)
        self.action_space = config.get("action_space", Discrete(3))
        seed = config.get("seed", 0)
        self._rng = np.random.default_rng(seed)
        self.observation_space.seed(seed)

    def reset(self, *, seed=None, options=None):
        self._left = int(self._rng.integers(1, 31))
        return self.observation_space.sample(), {}

    def step(self, action):
        self._left -= 1
        reward = float(self._rng.normal())
        return self.observation_space.sample(), reward, self._left <= 0, False, {}


class RaggedMultiAgentEnv(MultiAgentEnv):
    """Two agents; the second acts at random steps only, from a random step on."""

    def __init__(self, config: dict):
        super().__init__()
        self.agents = self.possible_agents = ["a", "b"]
        self.observation_spaces = dict.fromkeys(self.agents, VECTOR)
        self.action_spaces = dict.fromkeys(self.agents, Discrete(3))
        self._rng = np.random.default_rng(0)

    def reset(self, *, seed=None, options=None):
        self._left = int(self._rng.integers(1, 31))
        return self._observe(), {}

    def step(self, actions):
        self._left -= 1
        done = self._left <= 0
        rewards = {agent: float(self._rng.normal()) for agent in actions}
        return self._observe(everyone=done), rewards, {"__all__": done}, {"__all__": False}, {}

    def _observe(self, everyone: bool = False) -> dict:
        shown = ["a", "b"] if everyone or self._rng.random() < 0.5 else ["a"]
        return {agent: self._rng.random(3, np.float32) for agent in shown}


def old_stack(config: AlgorithmConfig) -> AlgorithmConfig:
    return config.api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )


def ppo_config(*, max_seq_len: int = 8, env_config: dict | None = None, model=None, **options):
    """Return a small old-stack PPO config with attention; `options` are `AttentionConfig`'s."""
    config = old_stack(PPOConfig()).environment(RaggedEnv, env_config=env_config or {})
    config.env_runners(
        num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=37
    ).training(
        model={
            "custom_model": "attention",
            "custom_model_config": {
                **{"dim": 16, "num_heads": 2, "window": 4, "dropout": 0.0},
                **options,
            },
            "max_seq_len": max_seq_len,
            "fcnet_hiddens": [16],
            "conv_filters": [[4, 3, 2]],
            **(model or {}),
        },
        train_batch_size=74,
        minibatch_size=32,
        num_epochs=1,
    )
    return config


def rollout_worker(config: AlgorithmConfig) -> RolloutWorker:
    return RolloutWorker(
        env_creator=lambda context: config.env(context),
        config=config,
        default_policy_class=config.algo_class.get_default_policy_class(config),
    )


def take_sides(policy: TorchPolicyV2, scale: float = 0.3) -> None:
    """Gives a fresh policy, which is close to uniform, outputs that depend on what it sees."""
    rng, weights = np.random.default_rng(0), policy.get_weights()
    noisy = {
        key: weight + scale * rng.standard_normal(weight.shape) if weight.ndim else weight
        for key, weight in weights.items()
    }
    policy.set_weights(noisy)


def sample(worker: RolloutWorker, policy_id: str = "default_policy") -> SampleBatch:
    return worker.sample().policy_batches[policy_id]


def training_pass(policy: TorchPolicyV2, batch: SampleBatch) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities and values of a batch as a loss computes them, padding removed."""
    batch = batch.copy()
    pad_batch_to_sequences_of_same_size(
        batch,
        max_seq_len=policy.config["model"]["max_seq_len"],
        shuffle=False,
        batch_divisibility_req=1,
        view_requirements=policy.view_requirements,
    )
    lengths = np.asarray(batch["seq_lens"])
    train_batch = policy._lazy_tensor_dict(batch)
    train_batch.set_training(True)
    logits, _ = policy.model(train_batch)
    logp = policy.dist_class(logits, policy.model).logp(train_batch["actions"])
    rows = [
        x.detach().numpy().reshape(len(lengths), -1) for x in (logp, policy.model.value_function())
    ]
    real = np.arange(rows[0].shape[1]) < lengths[:, None]
    return rows[0][real], rows[1][real]
