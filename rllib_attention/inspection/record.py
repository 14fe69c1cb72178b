"""Records the attention weights of an episode.

Shapes: T time, L layers, H heads.
"""

from dataclasses import dataclass

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_attention.new_stack.connectors.attention_module import AttentionModule, inspect_module
from rllib_attention.new_stack.connectors.step_inputs import fragment_inputs


@dataclass(frozen=True)
class AttentionRecord:
    """The attention weights of one episode.

    Attributes:
        weights: α of each layer and head, (L, H, T, T): rows are the steps that attend (queries),
            columns the steps attended to (keys). Each row adds to 1.
        rewards: The rewards of the episode, (T,).
    """

    weights: np.ndarray
    rewards: np.ndarray

    def share(self, distance: int, *, layer: int | None = None, head: int | None = None) -> float:
        """Returns the mean weight that lies a number of steps back.

        Args:
            distance: Steps from key to query; 0 is the current step.
            layer: One layer; None for the mean over all.
            head: One head; None for the mean over all.

        Returns:
            A number in [0, 1], over the steps that have such a past.

        Raises:
            ValueError: If `distance` is negative or no step of the episode reaches back so far.
        """
        length = self.weights.shape[-1]
        if not 0 <= distance < length:
            raise ValueError(
                f"`distance` must lie between 0 and {length - 1} in an episode of {length} steps, "
                f"got {distance}."
            )
        layers = slice(None) if layer is None else slice(layer, layer + 1)
        heads = slice(None) if head is None else slice(head, head + 1)
        diagonal = np.diagonal(self.weights[layers, heads], -distance, axis1=-2, axis2=-1)
        return float(diagonal.mean())

    def sharpest_head(self, distance: int) -> tuple[int, int]:
        """Returns the layer and head whose weight lies most at a distance."""
        num_layers, num_heads = self.weights.shape[:2]
        pairs = [(i, j) for i in range(num_layers) for j in range(num_heads)]
        return max(pairs, key=lambda pair: self.share(distance, layer=pair[0], head=pair[1]))


def record_attention(
    source: Algorithm | RLModule,
    episode: SingleAgentEpisode | None = None,
    *,
    module_id: str | None = None,
) -> AttentionRecord:
    """Returns the attention weights of an episode under the current weights.

    Args:
        source: An Algorithm, or an RLModule with attention.
        episode: A complete episode, as the module's connectors leave it; None to play one with
            the algorithm's own runner, without exploration. In a multi-agent set-up it is that of
            one agent; the one played is the longest of those in which the module acts.
        module_id: Which module of a multi-agent set-up; None for the only one with attention.

    Raises:
        TypeError: If there is no episode and `source` is not an Algorithm.
        ValueError: If there is no such module, it has no attention, `module_id` is missing where
            several modules have attention, or no agent of the module acted in the episode.
    """
    if episode is None and not isinstance(source, Algorithm):
        raise TypeError(
            "`record_attention` plays an episode itself only with an Algorithm, got "
            f"{type(source).__name__}. Pass an episode: `record_attention(module, episode)`."
        )
    chosen, module = _choose(_modules(source), module_id)
    if episode is None:
        episode = _play(source, chosen)
    weights = _weights(module, episode)
    return AttentionRecord(weights, np.asarray(episode.get_rewards(), np.float32))


def _modules(source: Algorithm | RLModule) -> dict[str, AttentionModule | None]:
    """Returns all modules by id, None for those without attention."""
    modules = source.env_runner.module if isinstance(source, Algorithm) else source
    if not isinstance(modules, MultiRLModule):
        return {DEFAULT_MODULE_ID: inspect_module(modules)}
    return {module_id: inspect_module(module) for module_id, module in modules.items()}


def _choose(
    modules: dict[str, AttentionModule | None], module_id: str | None
) -> tuple[str, AttentionModule]:
    """Returns the module that was asked for."""
    found = {key: module for key, module in modules.items() if module is not None}
    if module_id is None and len(found) == 1:
        return next(iter(found.items()))
    if module_id in found:
        return module_id, found[module_id]
    if not found:
        raise ValueError(
            f"None of the modules {sorted(modules)} has an attention encoder: build them with "
            "`use_attention(config)`."
        )
    problem = "is missing" if module_id is None else f"is {module_id!r}"
    raise ValueError(
        f"`module_id` must name a module with attention, one of {sorted(found)}, but it {problem}. "
        f"Use `record_attention(..., module_id={min(found)!r})`."
    )


def _play(algo: Algorithm, module_id: str) -> SingleAgentEpisode:
    """Plays one episode with a runner that has an environment."""
    has_remote = algo.config.num_env_runners > 0
    samples = algo.env_runner_group.foreach_env_runner(
        lambda runner: runner.sample(num_episodes=1, explore=False), local_env_runner=not has_remote
    )
    played = samples[0][0]
    if isinstance(played, SingleAgentEpisode):
        return played
    agents = [e for e in played.agent_episodes.values() if e.module_id == module_id and len(e)]
    if not agents:
        raise ValueError(
            f"No agent of module {module_id!r} acted in the episode that was played. Pass an "
            f"episode of one: `record_attention(algo, episode, module_id={module_id!r})`."
        )
    return max(agents, key=len)


@torch.no_grad()
def _weights(module: AttentionModule, episode: SingleAgentEpisode) -> np.ndarray:
    """Runs the whole episode as one row and returns α, (L, H, T, T)."""
    encoder, prev = module.encoders[0], module.prev_inputs
    inputs = fragment_inputs(episode, module, len(episode))
    stacked = prev.stack(inputs.rows) if prev.size else inputs.rows
    obs, carried = (torch.from_numpy(np.ascontiguousarray(x)) for x in (inputs.obs, stacked))
    device = encoder.embedding.input.weight.device
    rows = encoder.embedding(obs.to(device), carried.to(device)).unsqueeze(0)
    valid = torch.ones(rows.shape[:2], dtype=torch.bool, device=device)
    weights: list[torch.Tensor] = []
    encoder.transformer.forward_rows(rows, valid, rows.shape[1], weights=weights)
    return torch.cat(weights).cpu().numpy()[..., inputs.num_past :, inputs.num_past :]
