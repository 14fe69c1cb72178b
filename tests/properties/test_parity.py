"""Random spaces, options, algorithms and episodes: training computes what the rollout computed."""

import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from rllib_attention import use_attention
from rllib_attention.new_stack.connectors.attention_module import inspect_module
from rllib_attention.nn.positions import POSITIONS
from tests.harness import PARITY, RandomEnv, RandomMultiAgentEnv, prepare
from tests.pair import Pair
from tests.properties.spaces import (
    ANY_ACTIONS,
    BOX_ACTIONS,
    DISCRETE,
    FLATTENED,
    IMAGES,
    VECTORS,
)

ALGORITHMS = st.one_of(
    st.tuples(st.sampled_from([PPOConfig, APPOConfig]), ANY_ACTIONS),
    st.tuples(st.just(DQNConfig), DISCRETE),
    st.tuples(st.just(SACConfig), DISCRETE | BOX_ACTIONS),
)
OPTIONS = st.fixed_dictionaries(
    {"dim": st.just(8), "num_heads": st.sampled_from([1, 2])},
    optional={
        "num_layers": st.integers(2, 3),
        "window": st.integers(1, 6),
        "dilation": st.integers(1, 3),
        "ffn_dim": st.sampled_from([0, 8]),
        "position": st.sampled_from(POSITIONS),
        "gate": st.sampled_from(["residual", "gru"]),
        "dropout": st.sampled_from([0.0, 0.2]),
        "prev_actions": st.integers(0, 3),
        "prev_rewards": st.integers(0, 3),
        "max_seq_len": st.integers(1, 20),
    },
)
LENGTHS = st.tuples(st.integers(1, 20), st.integers(1, 60)).map(lambda ends: (ends[0], sum(ends)))
FRAGMENTS = st.integers(4, 40)


def config_for(algorithm, fragment, env=RandomEnv, **env_config):
    """A config of one runner with three sub-environments."""
    config = prepare(algorithm(), env, **env_config)
    config.env_runners(rollout_fragment_length=fragment)
    return config.training(train_batch_size_per_learner=60)


def has_finite_gradients(pair, num_timesteps) -> bool:
    """Whether a pass through the learner's module reaches all weights of the acting encoder."""
    episodes = pair.runner.sample(num_timesteps=num_timesteps)
    batch = pair.pipeline(
        rl_module=pair.module, batch={}, episodes=episodes, shared_data={}, metrics=None
    )
    module = pair.module[DEFAULT_MODULE_ID].unwrapped()
    out = module.forward_train(batch[DEFAULT_MODULE_ID])
    out[Columns.ACTION_DIST_INPUTS].square().sum().backward()
    [actor, *_] = inspect_module(module).encoders
    grads = [weight.grad for weight in actor.parameters()]
    return all(grad is not None and torch.isfinite(grad).all() for grad in grads)


@given(ALGORITHMS, VECTORS | IMAGES | FLATTENED, OPTIONS, LENGTHS, FRAGMENTS)
def test_any_space(algorithm, observations, options, lengths, fragment):
    config_class, actions = algorithm
    config = config_for(
        config_class,
        fragment,
        observation_space=observations,
        action_space=actions,
        lengths=lengths,
    )
    if isinstance(observations, spaces.Box) and len(observations.shape) == 3:
        filters = {"conv_filters": [[4, 4, 2]], "head_fcnet_hiddens": []}
        config.rl_module(model_config=filters)
    elif not (isinstance(observations, spaces.Box) and len(observations.shape) == 1):
        config.env_runners(env_to_module_connector=lambda *args, **kw: FlattenObservations())
    pair = Pair(use_attention(config, **options))
    assert pair.mismatch(num_timesteps=40) < PARITY
    if config_class in (PPOConfig, APPOConfig):
        assert has_finite_gradients(pair, 40)


@given(
    st.sampled_from([PPOConfig, APPOConfig]),
    st.sampled_from(["all", "turns", "random"]),
    st.integers(1, 4),
    OPTIONS,
    # RLlib's check of an environment wants agents left after its first step.
    LENGTHS.map(lambda ends: (3 + ends[0], 3 + ends[1])),
    FRAGMENTS,
)
def test_agents_that_come_and_go(config_class, mode, num_agents, options, lengths, fragment):
    config = config_for(
        config_class,
        fragment,
        RandomMultiAgentEnv,
        mode=mode,
        num_agents=num_agents,
        lengths=lengths,
    )
    config.multi_agent(
        policies={"p0", "p1"}, policy_mapping_fn=lambda aid, *args, **kw: f"p{int(aid[-1]) % 2}"
    )
    assert Pair(use_attention(config, **options)).mismatch(num_timesteps=40) < PARITY
