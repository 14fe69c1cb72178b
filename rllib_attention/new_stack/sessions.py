"""One session of a policy: an episode that is stepped by whoever acts in it."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_attention.new_stack.policy_parts import PolicyParts

# A cut copies the lookback, so a fragment grows at least this long before it is cut.
_MIN_FRAGMENT = 64


@dataclass(frozen=True)
class Taken:
    """What happened after a session's newest observation.

    Attributes:
        action: The action, as the module's distribution gives it.
        reward: The reward that it brought; None while nobody has said.
    """

    action: Any
    reward: float | None = None


class Session:
    """A running episode, of which only the last steps are kept.

    Connector pieces see it as they see those of RLlib's runners: a fragment with a lookback.

    Args:
        parts: What the policy is made of.

    Attributes:
        episode: The episode; a multi-agent one with one agent where the pipeline wants such.
        taken: What happened after the newest observation; None until an action is known.
    """

    def __init__(self, parts: PolicyParts):
        self._agent_id, self._lookback = parts.agent_id, parts.lookback
        self._reads_rewards = parts.reads_rewards
        spaces = parts.env_to_module
        observations, actions = spaces.input_observation_space, spaces.input_action_space
        self.episode: Any
        if parts.agent_id is None:
            self.episode = SingleAgentEpisode(observation_space=observations, action_space=actions)
        else:
            self.episode = MultiAgentEpisode(
                observation_space=dict(observations.spaces),
                action_space=dict(actions.spaces),
                agent_to_module_mapping_fn=lambda agent_id, episode: parts.module_id,
            )
        self.taken: Taken | None = None

    @property
    def episode_id(self) -> str | None:
        """The ID by which connector pieces know the session, None before its first step."""
        if not self.episode.is_reset:
            return None
        if self._agent_id is None:
            return self.episode.id_
        return self.episode.agent_episodes[self._agent_id].id_

    def before(self, name: Hashable, action: Any, reward: Any) -> Taken | None:
        """Returns what led to the next observation, None if that is the first.

        Args:
            name: What errors call the session.
            action: The action that was taken instead of the last one, if any, as the module's
                distribution gives it.
            reward: Its reward, if known.

        Raises:
            ValueError: If there was no step before, or too little is known of it.
        """
        if not self.episode.is_reset:
            if action is None and reward is None:
                return None
            raise ValueError(
                f"Session {name!r} has no step before, so no `prev_action` or `prev_reward`. Fix: "
                f"leave them out, or tell what came before: `policy.reset({name!r}, history=[(obs, "
                "action, reward), ...])`."
            )
        taken = self.taken if action is None else Taken(action)
        if taken is None:
            raise ValueError(
                f"The last call of `act` failed, so session {name!r} has no action. Fix: "
                "`act(..., prev_action=...)` with the one that was taken, or `policy.reset"
                f"({name!r})`."
            )
        if reward is not None:
            taken = replace(taken, reward=float(reward))
        if taken.reward is None and self._reads_rewards:
            raise ValueError(
                f"The module reads previous rewards, but that of session {name!r} is missing. "
                "Fix: `act(obs, prev_reward=...)`, with {session: reward} for several sessions."
            )
        return taken

    def observe(self, obs: Any, taken: Taken | None) -> None:
        """Adds an observation, and what led to it.

        Args:
            obs: The observation.
            taken: The action before it and its reward; None for the session's first step.
        """
        self.taken = None
        if taken is None:
            if self._agent_id is None:
                self.episode.add_env_reset(obs)
            else:
                self.episode.add_env_reset(observations=self._of_agent(obs))
            return
        if len(self.episode) >= max(_MIN_FRAGMENT, self._lookback):
            self.episode = self.episode.cut(len_lookback_buffer=self._lookback)
        action, reward = taken.action, taken.reward or 0.0
        self.episode.add_env_step(
            self._of_agent(obs), self._of_agent(action), self._of_agent(reward)
        )

    def _of_agent(self, value: Any) -> Any:
        return value if self._agent_id is None else {self._agent_id: value}
