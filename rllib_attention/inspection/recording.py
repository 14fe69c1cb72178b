"""Records attention weights: of an episode that is given, or of episodes that it plays itself."""

import contextlib
import os
from collections.abc import Hashable, Iterator
from typing import Any, TypeAlias, overload

import numpy as np
import torch
import tree
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.typing import EpisodeType
from ray.train import Checkpoint

from rllib_attention.inspection.environments import make_env
from rllib_attention.inspection.play import Played, agent_episodes, kept_random_numbers, play
from rllib_attention.inspection.record import AttentionRecord
from rllib_attention.new_stack.choices import choose_module
from rllib_attention.new_stack.connectors.attention_module import AttentionModule, inspect_module
from rllib_attention.new_stack.connectors.step_inputs import as_batch, fragment_inputs
from rllib_attention.new_stack.policy_parts import PolicyParts
from rllib_attention.policy import AttentionPolicy
from rllib_attention.sources import algorithm_parts, checkpoint_config, load_parts

# Observations that are embedded at once: images take much room on their way through a CNN.
_STEPS_AT_ONCE = 256
# What errors call this.
_CALL = "record_attention(source"

Source: TypeAlias = Algorithm | AttentionPolicy | RLModule | str | os.PathLike | Checkpoint


@overload
def record_attention(
    source: Source,
    episode: EpisodeType | None = None,
    *,
    module_id: str | None = None,
    agent_id: Hashable | None = None,
    episodes: None = None,
    env: Any = None,
    env_config: dict[str, Any] | None = None,
    seed: int | None = None,
    max_steps: int | None = None,
) -> AttentionRecord: ...


@overload
def record_attention(
    source: Source,
    episode: None = None,
    *,
    module_id: str | None = None,
    agent_id: Hashable | None = None,
    episodes: int,
    env: Any = None,
    env_config: dict[str, Any] | None = None,
    seed: int | None = None,
    max_steps: int | None = None,
) -> list[AttentionRecord]: ...


def record_attention(
    source: Source,
    episode: EpisodeType | None = None,
    *,
    module_id: str | None = None,
    agent_id: Hashable | None = None,
    episodes: int | None = None,
    env: Any = None,
    env_config: dict[str, Any] | None = None,
    seed: int | None = None,
    max_steps: int | None = None,
) -> AttentionRecord | list[AttentionRecord]:
    """Returns the attention weights of an episode, or of several.

    The source is left as it is: an episode is played with copies of its module and connectors, in
    an environment of its own, and global random states are put back.

    Args:
        source: An Algorithm, an `AttentionPolicy`, the path of a checkpoint or Tune's
            `Result.checkpoint`; or, with `episode`, an RLModule.
        episode: An episode as the module's connectors leave it, or a fragment with its lookback;
            None to play one without exploration.
        module_id: Which module of a multi-agent set-up; None for the only one with attention.
        agent_id: Which agent of it; None for the one that acts for longest in the episode.
        episodes: How many episodes to play; None for one.
        env: The environment: an object, an ID of Gymnasium or of Tune, "module:attribute", a
            class, or a function that takes an `env_config`. None for that of the training, which a
            module and an `AttentionPolicy` do not know.
        env_config: Its options; None for those of the training if `env` is None, else for none.
        seed: For the environment's reset; that of the next episode is one more.
        max_steps: Episodes are left after so many steps.

    Returns:
        A record; with `episodes`, a list of as many.

    Raises:
        TypeError: If `source` is none of these, or an RLModule without an episode.
        ValueError: If there is no such checkpoint, environment or module, the module has no
            attention, `module_id` is missing where several modules have attention, no agent of
            the module acted, there are `episodes` beside an episode, or they are fewer than one.
    """
    if episode is not None:
        if episodes is not None:
            raise ValueError(
                "`record_attention` expects `episodes` to play, or an episode that was played, got "
                "both. Fix: leave `episodes` out."
            )
        chosen, module = _module_of(source, module_id)
        return record_episode(module, choose_episode(episode, chosen, agent_id))
    with opened(source, module_id, agent_id, env, env_config) as (parts, environment):
        count = 1 if episodes is None else episodes
        found = played_records(parts, environment, count, agent_id, seed, max_steps=max_steps)
        records = [record for record, _ in found]
    return records[0] if episodes is None else records


@contextlib.contextmanager
def opened(
    source: Source, module_id: str | None, agent_id: Hashable | None, env: Any, env_config: Any
) -> Iterator[tuple[PolicyParts, Any]]:
    """Opens a policy of its own and an environment, both of which are closed at the end.

    Args:
        source: As for `record_attention`, and so on.
        module_id: As there.
        agent_id: As there.
        env: As there. An object is left open.
        env_config: As there.

    Raises:
        TypeError: As there.
        ValueError: As there.
    """
    with kept_random_numbers():
        parts, config = _parts_of(source, module_id, agent_id)
        environment = make_env(config, env, env_config)
        try:
            yield parts, environment
        finally:
            if environment is not env:
                environment.close()


def played_records(
    parts: PolicyParts,
    env: Any,
    count: int,
    agent_id: Hashable | None,
    seed: int | None,
    **options: Any,
) -> Iterator[tuple[AttentionRecord, Played]]:
    """Plays episodes and yields each with its record.

    Args:
        parts: What the policy is made of.
        env: The environment.
        count: How many episodes.
        agent_id: As for `record_attention`.
        seed: As for `record_attention`.
        **options: For `play`.

    Raises:
        ValueError: If `count` is less than one, and as `play`.
    """
    if count < 1:
        raise ValueError(f"`episodes` must be at least 1, got {count}.")
    module = inspect_module(parts.module)
    assert module is not None  # parts are those of a module with attention
    for number in range(count):
        played = play(parts, env, seed=None if seed is None else seed + number, **options)
        single = choose_episode(played.episode, parts.module_id, agent_id)
        yield record_episode(module, single), played


def choose_episode(
    episode: EpisodeType, module_id: str, agent_id: Hashable | None
) -> SingleAgentEpisode:
    """Returns the episode of the agent in question: that of a single one is itself.

    Args:
        episode: An episode.
        module_id: The module that is recorded.
        agent_id: The agent; None for the one that acts for longest.

    Raises:
        ValueError: If no such agent acted.
    """
    if isinstance(episode, SingleAgentEpisode):
        return episode
    agents = {k: e for k, e in agent_episodes(episode).items() if e.module_id == module_id and e}
    if agent_id is not None:
        agents = {k: e for k, e in agents.items() if k == agent_id}
    if not agents:
        who = f"No agent of module {module_id!r}" if agent_id is None else f"Agent {agent_id!r}"
        raise ValueError(
            f"{who} acted in the episode of {sorted(map(str, episode.agent_episodes))}. Fix: pass "
            f"an episode of one: `record_attention(algo, episode, module_id={module_id!r})`."
        )
    return max(agents.values(), key=len)


@torch.no_grad()
def record_episode(module: AttentionModule, episode: SingleAgentEpisode) -> AttentionRecord:
    """Returns the attention weights of an episode, or of a fragment with its lookback.

    Args:
        module: The module that acted in it.
        episode: As the module's connectors leave it.
    """
    encoder, prev = module.encoders[0], module.prev_inputs
    inputs = fragment_inputs(episode, module, len(episode))
    carried = prev.stack(inputs.rows) if prev.size else inputs.rows
    device, tokens = encoder.embedding.input.weight.device, []
    for first in range(0, len(inputs.obs), _STEPS_AT_ONCE):
        part = slice(first, first + _STEPS_AT_ONCE)
        arrays = (np.ascontiguousarray(x[part]) for x in (inputs.obs, carried))
        obs, rows = (torch.from_numpy(x).to(device) for x in arrays)
        encoder.embedding.check(obs)
        tokens.append(encoder.embedding(obs, rows))
    weights = encoder.transformer.record(torch.cat(tokens))
    return AttentionRecord(
        weights.numpy()[:, :, inputs.num_past :],
        np.asarray(encoder.transformer.strides),
        inputs.obs[inputs.num_past :],
        _joined(as_batch(episode.get_actions())),
        np.asarray(episode.get_rewards(), np.float32),
        episode.t_started,
        inputs.num_past,
    )


def _joined(actions: Any) -> np.ndarray:
    """Returns a batch of actions as one array."""
    leaves = [np.asarray(leaf) for leaf in tree.flatten(actions)]
    if len(leaves) == 1:
        return leaves[0]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def _module_of(source: Source, module_id: str | None) -> tuple[str, AttentionModule]:
    """Returns the source's own module: to look at an episode changes nothing in it."""
    modules: Any
    if isinstance(source, Algorithm | RLModule):
        modules = source.env_runner.module if isinstance(source, Algorithm) else source
        is_multi = isinstance(modules, MultiRLModule)
        modules = dict(modules.items()) if is_multi else {DEFAULT_MODULE_ID: modules}
    elif isinstance(source, AttentionPolicy):
        modules = {source.module_id: source.module}
    else:
        parts, _ = _parts_of(source, module_id, None)
        modules = {parts.module_id: parts.module}
    chosen = choose_module(modules, module_id, _CALL)
    found = inspect_module(modules[chosen])
    assert found is not None
    return chosen, found


def _parts_of(
    source: Source, module_id: str | None, agent_id: Hashable | None
) -> tuple[PolicyParts, AlgorithmConfig | None]:
    """Returns copies of what a source's policy is made of, and its config where it has one."""
    if isinstance(source, Algorithm):
        return algorithm_parts(source, module_id, agent_id), source.config
    if isinstance(source, AttentionPolicy):
        return source.copied_parts(), None
    if isinstance(source, Checkpoint):
        with source.as_directory() as path:
            return _parts_of(path, module_id, agent_id)
    if isinstance(source, str | os.PathLike):
        return load_parts(source, module_id, agent_id), checkpoint_config(source)
    if isinstance(source, RLModule):
        raise TypeError(
            "`record_attention` plays episodes with an Algorithm, an AttentionPolicy or a "
            f"checkpoint, got {type(source).__name__} alone. Fix: pass an episode: "
            "`record_attention(module, episode)`."
        )
    raise TypeError(
        "`record_attention` expects an Algorithm, an AttentionPolicy, an RLModule or the path of a "
        f"checkpoint, got {type(source).__name__}. Fix: `record_attention(algo)`."
    )
