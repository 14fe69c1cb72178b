"""One iteration of PPO, APPO and SAC each, then acting alone."""

import gymnasium as gym
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig

import rllib_attention
from rllib_attention import AttentionPolicy, use_attention

print(rllib_attention.__file__)
for config_class, env in (
    (PPOConfig, "CartPole-v1"),
    (APPOConfig, "CartPole-v1"),
    (SACConfig, "Pendulum-v1"),
):
    config = use_attention(config_class().environment(env).env_runners(num_env_runners=1))
    algo = config.build_algo()
    algo.train()
    policy = AttentionPolicy(algo)
    observation, _ = gym.make(env).reset(seed=0)
    print(config_class.__name__, policy.act(observation))
    algo.stop()
