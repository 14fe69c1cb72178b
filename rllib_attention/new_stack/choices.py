"""Which module of several acts, and as which agent."""

from collections.abc import Iterable, Mapping
from typing import Any

from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.connectors.env_to_module import AgentToModuleMapping
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rllib_attention.new_stack.connectors.attention_module import inspect_module


def choose_module(modules: Mapping[str, RLModule], module_id: str | None, call: str) -> str:
    """Returns the ID of the module with attention that was asked for.

    Args:
        modules: All modules by ID.
        module_id: Its ID; None for the only one with attention.
        call: What errors call the function that asks, such as "record_attention(source".

    Raises:
        ValueError: If there is no such module, or it has no attention.
    """
    found = [key for key, module in modules.items() if inspect_module(module) is not None]
    return choose_id(found, modules, module_id, call)


def choose_id(found: list[str], known: Iterable[str], module_id: str | None, call: str) -> str:
    """Returns the ID that was asked for among those of modules with attention.

    Args:
        found: The IDs of modules with attention.
        known: Those of all modules.
        module_id: As for `choose_module`.
        call: As for `choose_module`.

    Raises:
        ValueError: As `choose_module`.
    """
    if module_id is None and len(found) == 1:
        return found[0]
    if module_id in found:
        return module_id
    if not found:
        raise ValueError(
            f"`{call})` expects a module with an attention encoder, but none of "
            f"{sorted(known)} has one. Fix: train with `use_attention(config)`."
        )
    problem = "is missing" if module_id is None else f"is {module_id!r}"
    raise ValueError(
        f"`module_id` must name a module with attention, one of {sorted(found)}, but it {problem}. "
        f"Fix: `{call}, module_id={min(found)!r})`."
    )


def agent_mapping(pipeline: ConnectorPipelineV2) -> Any:
    """Returns the function from agents to modules of a multi-agent pipeline, None in others.

    Args:
        pipeline: An env-to-module pipeline.
    """
    for piece in pipeline[AgentToModuleMapping]:
        return piece.get_ctor_args_and_kwargs()[1]["agent_to_module_mapping_fn"]
    return None


def choose_agent(pipeline: ConnectorPipelineV2, mapping: Any, module_id: str, agent_id: Any) -> Any:
    """Returns the agent that was asked for, else the first that is mapped to the module."""
    agents = list(pipeline.input_observation_space.spaces)
    if agent_id is None:
        episode = MultiAgentEpisode()
        mine = [agent for agent in agents if mapping(agent, episode) == module_id]
        if mine:
            return mine[0]
    if agent_id in agents:
        return agent_id
    problem = (
        f"None of them is mapped to {module_id!r}" if agent_id is None else f"got {agent_id!r}"
    )
    raise ValueError(
        f"`agent_id` must name an agent of the environment, one of {agents}: {problem}. Fix: "
        f"`AttentionPolicy.from_checkpoint(path, {module_id!r}, agent_id={agents[0]!r})`."
    )
