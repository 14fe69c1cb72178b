"""Plays whole episodes with a policy's own module and connectors, outside of any runner."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import unbatch
from ray.rllib.utils.typing import EpisodeType

from rllib_attention.new_stack.choices import agent_mapping
from rllib_attention.new_stack.connectors import AddRolloutContext
from rllib_attention.new_stack.policy_parts import PolicyParts


@dataclass
class Played:
    """One episode that was played.

    Attributes:
        episode: The episode, in one piece.
        frames: What the environment rendered at each step, (height, width, 3) each; empty where it
            was not asked to, or renders nothing.
    """

    episode: EpisodeType
    frames: list[np.ndarray] = field(default_factory=list)


def play(
    parts: PolicyParts,
    env: gym.Env | MultiAgentEnv,
    *,
    seed: int | None = None,
    max_steps: int | None = None,
    with_frames: bool = False,
) -> Played:
    """Plays one episode without exploration.

    Args:
        parts: What the policy is made of; its connectors' memory is used.
        env: The environment.
        seed: For its reset.
        max_steps: The episode is left after so many steps; None to play it to its end.
        with_frames: Whether to render each step.

    Raises:
        ValueError: If the environment is one for several agents and the policy is not, or the
            reverse.
    """
    is_multi = isinstance(env, MultiAgentEnv)
    if is_multi != (parts.agent_id is not None):
        kinds = ("one agent", "several agents")
        raise ValueError(
            f"The policy acts in environments of {kinds[not is_multi]}, got {env} of "
            f"{kinds[is_multi]}. Fix: pass the kind of environment that it was trained in."
        )
    obs, infos = env.reset(seed=seed)
    played = Played(_begin(parts, obs, infos))
    episode = played.episode
    while not episode.is_done and (max_steps is None or len(episode) < max_steps):
        if with_frames and (frame := _frame(env)) is not None:
            played.frames.append(frame)
        computed, returned = _act(parts, episode)
        obs, rewards, terminated, truncated, infos = env.step(returned)
        last = (terminated, truncated)
        episode.add_env_step(obs, computed, rewards, infos, **_ends(last, is_multi))
    [memory] = parts.env_to_module[AddRolloutContext]
    for single in agent_episodes(episode).values():
        memory.forget(single.id_)
    return played


def agent_episodes(episode: EpisodeType) -> dict[Any, SingleAgentEpisode]:
    """Returns the episodes of all agents by ID, by None for that of a single agent.

    Args:
        episode: An episode.
    """
    if isinstance(episode, SingleAgentEpisode):
        return {None: episode}
    return dict(episode.agent_episodes)


@contextlib.contextmanager
def kept_random_numbers() -> Iterator[None]:
    """Puts the global random states back: building modules and environments draws from them."""
    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(tensors)
        if devices:
            torch.cuda.set_rng_state_all(devices)


def _begin(parts: PolicyParts, obs: Any, infos: Any) -> EpisodeType:
    spaces = parts.env_to_module
    observations, actions = spaces.input_observation_space, spaces.input_action_space
    if parts.agent_id is None:
        single = SingleAgentEpisode(observation_space=observations, action_space=actions)
        single.add_env_reset(obs, infos)
        return single
    episode = MultiAgentEpisode(
        observation_space=dict(observations.spaces),
        action_space=dict(actions.spaces),
        agent_to_module_mapping_fn=agent_mapping(spaces),
    )
    episode.add_env_reset(observations=obs, infos=infos)
    return episode


def _ends(last: tuple[Any, Any], is_multi: bool) -> dict[str, Any]:
    names = ("terminateds", "truncateds") if is_multi else ("terminated", "truncated")
    return dict(zip(names, last, strict=True))


@torch.no_grad()
def _act(parts: PolicyParts, episode: EpisodeType) -> tuple[Any, Any]:
    """Returns the actions of the module, and those for the environment."""
    shared: dict[str, Any] = {}
    options = {"rl_module": parts.runner_module, "episodes": [episode], "explore": False}
    batch = parts.env_to_module(batch={}, shared_data=shared, **options)
    outputs = parts.runner_module.forward_inference(batch)
    columns = parts.module_to_env(batch=outputs, shared_data=shared, **options)
    computed = columns[Columns.ACTIONS]
    returned = columns.get(Columns.ACTIONS_FOR_ENV, computed)
    if parts.agent_id is None:
        computed, returned = unbatch(computed), unbatch(returned)
    return computed[0], returned[0]


def _frame(env: Any) -> np.ndarray | None:
    """Returns a picture of the environment's state, None if it makes none."""
    try:
        frame = env.render()
    except NotImplementedError:
        return None
    is_picture = isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3
    return frame if is_picture else None
