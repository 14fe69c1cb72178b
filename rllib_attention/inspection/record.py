"""Records the attention weights of an episode.

Shapes: T time, L layers, H heads.
"""

from dataclasses import dataclass

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_attention.new_stack.connectors.attention_module import AttentionModule, attention_module
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
    module_id: str = DEFAULT_MODULE_ID,
) -> AttentionRecord:
    """Returns the attention weights of an episode under the current weights.

    Args:
        source: An Algorithm, or an RLModule with attention.
        episode: A complete episode, as the module's connectors leave it; None to play one with
            the algorithm's own runner, without exploration.
        module_id: Which module of a multi-agent algorithm.

    Raises:
        TypeError: If there is no episode and `source` is not an Algorithm.
        ValueError: If the module has no attention.
    """
    if episode is None:
        if not isinstance(source, Algorithm):
            raise TypeError(
                "`record_attention` plays an episode itself only with an Algorithm, got "
                f"{type(source).__name__}. Pass an episode: `record_attention(module, episode)`."
            )
        episode = _play(source)
    rl_module = source.get_module(module_id) if isinstance(source, Algorithm) else source
    module = attention_module(rl_module, module_id)
    if module is None:
        raise ValueError(
            f"Module {module_id!r} has no attention encoder: build it with `use_attention(config)`."
        )
    weights = _weights(module, episode)
    return AttentionRecord(weights, np.asarray(episode.get_rewards(), np.float32))


def _play(algo: Algorithm) -> SingleAgentEpisode:
    """Plays one episode with a runner that has an environment."""
    has_remote = algo.config.num_env_runners > 0
    samples = algo.env_runner_group.foreach_env_runner(
        lambda runner: runner.sample(num_episodes=1, explore=False), local_env_runner=not has_remote
    )
    return samples[0][0]


@torch.no_grad()
def _weights(module: AttentionModule, episode: SingleAgentEpisode) -> np.ndarray:
    """Runs the whole episode as one row and returns α, (L, H, T, T)."""
    encoder = module.encoders[0]
    inputs = fragment_inputs(episode, module, len(episode))
    obs, features = (
        torch.from_numpy(np.ascontiguousarray(x)) for x in (inputs.obs, inputs.features)
    )
    device = encoder.input.weight.device
    rows = encoder.embed(obs.to(device), features.to(device)).unsqueeze(0)
    valid = torch.ones(rows.shape[:2], dtype=torch.bool, device=device)
    weights: list[torch.Tensor] = []
    encoder.transformer.forward_rows(rows, valid, rows.shape[1], weights=weights)
    return torch.cat(weights).cpu().numpy()[..., inputs.num_past :, inputs.num_past :]
