"""Acting with a trained policy, without an Algorithm and without a Ray cluster.

Shapes: N sessions, A choices of an action.
"""

import os
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.train import Checkpoint

from rllib_attention.config import AttentionConfig
from rllib_attention.dispatch import use_attention
from rllib_attention.export import PolicyStep, export_step, write_onnx
from rllib_attention.new_stack.decision import Decision
from rllib_attention.new_stack.policy_parts import PolicyParts, copy_parts, module_parts
from rllib_attention.new_stack.policy_pass import PolicyPass
from rllib_attention.new_stack.policy_spaces import PolicySpaces
from rllib_attention.new_stack.sessions import Session, Taken
from rllib_attention.sources import algorithm_parts, load_parts


class AttentionPolicy:
    """A trained module with RLlib's connectors around it, which acts session by session.

    A session is an episode that somebody else plays: a game, a user, a robot. It opens when it is
    first acted in, has its own clock and context, and remembers what the policy did in it. Actions
    are those of the Algorithm's own evaluation. Weights and filter statistics never change.

    .. code-block:: python

        import gymnasium as gym
        from rllib_attention import AttentionConfig, AttentionPolicy

        env = gym.make("CartPole-v1")
        # Untrained; a trained one comes from `AttentionPolicy.from_checkpoint(path)`.
        policy = AttentionPolicy.from_spaces(
            AttentionConfig(), env.observation_space, env.action_space
        )

        obs, done, reward = env.reset()[0], False, None
        policy.reset()
        while not done:
            action = policy.act(obs, prev_reward=reward)
            obs, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated

    Args:
        source: An Algorithm of either API stack: its learner's present weights and its
            connectors' state are copied.
        module_id: Which module of a multi-agent set-up acts, or which policy of the old API stack;
            None for the only one with attention.
        agent_id: Whose observations it is given in a multi-agent set-up; None for the first agent
            that is mapped to the module. (Old API stack: None, a policy is the same for all.)

    Attributes:
        module: The RLModule that acts. One of the same function stands for a policy of the old
            API stack.
        module_id: Its ID.
        observation_space: Of the observations that `act` takes.
        action_space: Of the actions that `act` returns.

    Raises:
        TypeError: If `source` is not an Algorithm.
        ValueError: If there is no such module or agent, or the module has no attention.
    """

    def __init__(
        self,
        source: Algorithm | PolicyParts,
        *,
        module_id: str | None = None,
        agent_id: Hashable | None = None,
    ):
        if isinstance(source, Algorithm):
            source = algorithm_parts(source, module_id, agent_id)
        if not isinstance(source, PolicyParts):
            raise TypeError(
                f"`AttentionPolicy` expects an Algorithm, got {type(source).__name__}. Fix: "
                "`AttentionPolicy.from_checkpoint(path)` for a checkpoint."
            )
        self._parts = parts = source
        self.module, self.module_id = parts.module, parts.module_id
        self.observation_space, self.action_space = parts.observation_space, parts.action_space
        self._pass, self._spaces = PolicyPass(parts), PolicySpaces(parts)
        self._sessions: dict[Hashable, Session] = {}

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike | Checkpoint,
        module_id: str | None = None,
        *,
        agent_id: Hashable | None = None,
    ) -> "AttentionPolicy":
        """Returns the policy of a checkpoint. No Ray cluster is started.

        Args:
            path: The folder of an Algorithm's checkpoint (`algo.save_to_path()`, or a Tune
                trial's), of an RLModule's or a MultiRLModule's, or Tune's `Result.checkpoint`
                itself. A module's checkpoint holds no connectors: the policy then takes what the
                module takes, such as flattened observations, and unsquashes Box actions. Of the
                old API stack, an Algorithm's or a Policy's, which holds preprocessor and filter.
            module_id: As for the class.
            agent_id: As for the class.

        Raises:
            TypeError: If `path` is something else.
            ValueError: If there is no such checkpoint, module or agent, the module has no
                attention, or a policy of the old API stack has actions or connectors that are not
                known.
        """
        if isinstance(path, Checkpoint):  # first: it pretends to be a path, and then refuses
            with path.as_directory() as folder:
                return cls(load_parts(folder, module_id, agent_id))
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                "`from_checkpoint` expects a path or a Tune checkpoint, got "
                f"{type(path).__name__}. Fix: `AttentionPolicy.from_checkpoint(result.checkpoint)`."
            )
        return cls(load_parts(path, module_id, agent_id))

    @classmethod
    def from_spaces(
        cls, attention: AttentionConfig, observation_space: gym.Space, action_space: gym.Space
    ) -> "AttentionPolicy":
        """Returns an untrained policy, that of PPO, for tests.

        Args:
            attention: The options.
            observation_space: A space that RLlib's PPO takes without connectors.
            action_space: A space that RLlib's PPO takes.
        """
        config = use_attention(PPOConfig(), attention)
        spaces = (observation_space, action_space)
        spec = config.get_multi_rl_module_spec(
            spaces={INPUT_ENV_SINGLE_SPACES: spaces, DEFAULT_MODULE_ID: spaces}
        )
        return cls(module_parts(spec.build(), None))

    def copied_parts(self) -> PolicyParts:
        """Returns what the policy is made of, with a module and connectors of its own."""
        return copy_parts(self._parts)

    @property
    def reads_rewards(self) -> bool:
        """Whether `act` needs the reward of the step before."""
        return self._parts.reads_rewards

    @property
    def sessions(self) -> tuple[Hashable, ...]:
        """The open sessions."""
        return tuple(self._sessions)

    def reset(
        self, session: Hashable = None, *, history: Iterable[tuple[Any, Any, float]] = ()
    ) -> None:
        """Begins a session anew; opens it if it is not open.

        Args:
            session: Its name; None is that of the session of a plain `act(obs)`.
            history: What happened in the episode before: (observation, action, reward) of each
                step, actions as `act` returns them. The last steps that the context holds are
                enough. (An action that was clipped for the environment counts as clipped, while
                the sessions of this policy remember it as it was computed.)

        Raises:
            ValueError: If an observation does not fit.
        """
        steps = list(history)
        for obs, _, _ in steps:
            self._spaces.check(session, obs)
        self._pass.forget(self._sessions.get(session))
        opened = Session(self._parts)
        for obs, action, reward in steps:
            opened.observe(obs, opened.taken)
            self._pass.observe([opened], explore=False)
            opened.taken = Taken(self._spaces.computed(action), float(reward))
        self._sessions[session] = opened

    def close(self, session: Hashable = None) -> None:
        """Forgets a session.

        Args:
            session: Its name.

        Raises:
            ValueError: If it is not open.
        """
        if session not in self._sessions:
            raise ValueError(
                f"`close` expects an open session, got {session!r}; {len(self._sessions)} are "
                "open. Fix: close each session once; see `policy.sessions`."
            )
        self._pass.forget(self._sessions.pop(session))

    def seed(self, seed: int) -> None:
        """Makes exploration repeatable.

        Args:
            seed: Any number.
        """
        self._pass.seed(seed)

    def act(
        self,
        obs: Any,
        *,
        prev_action: Any = None,
        prev_reward: Any = None,
        explore: bool = False,
    ) -> Any:
        """Returns the next action, ready for the environment.

        Args:
            obs: The next observation; or {session: observation} for any of the sessions, in one
                batch. Sessions that are not open are opened.
            prev_action: The action that was taken in the step before, where it was not the one
                that `act` returned; with several sessions {session: action} for those concerned.
            prev_reward: The reward of the step before; with several sessions {session: reward}.
                Needed, save in a session's first step, where the module reads previous rewards.
            explore: Whether to sample from the distribution, as in training. See `seed`.

        Returns:
            An action, or {session: action}.

        Raises:
            ValueError: If an observation does not fit, a needed reward is missing, or there is an
                action or reward of a session that has no step before.
        """
        single = not self._spaces.names_sessions(obs)
        if single:
            obs, prev_action, prev_reward = {None: obs}, {None: prev_action}, {None: prev_reward}
        prev_action = {} if prev_action is None else prev_action
        prev_reward = {} if prev_reward is None else prev_reward
        actions = self._act(obs, prev_action, prev_reward, explore, single=single)
        return actions[None] if single else actions

    def values(self) -> Any:
        """Returns the critic's values of the states in which `act` was called last.

        Returns:
            A number, or {session: number} if `act` was given sessions.

        Raises:
            ValueError: If the module has no critic, or there is no decision yet.
        """
        return self._decided().values(self.module)

    def action_probs(self) -> Any:
        """Returns how probable the module held each action when `act` was called last.

        Returns:
            (A,) for Discrete actions, a list of such for the parts of MultiDiscrete ones; by
            session if `act` was given sessions.

        Raises:
            ValueError: If the actions are neither, the module computes actions without a
                distribution, or there is no decision yet.
        """
        return self._decided().action_probs(self.module.action_space)

    def export(self) -> torch.export.ExportedProgram:
        """Returns one step of the policy as a function of tensors, for `torch.export`.

        It takes a dict of tensors with the sessions in rows, any number of them, and returns one:
        observations and context in, actions without exploration and the next context out. Filters
        and flattening are part of it. `docs/acting.md` says what the tensors are called.

        Raises:
            ValueError: If a space or a connector piece cannot be exported, or the module acts with
                several attention encoders.
        """
        return export_step(PolicyStep(self._parts))

    def export_onnx(self, path: str | os.PathLike) -> None:
        """Writes one step of the policy as an ONNX file: it needs neither torch nor Ray to act.

        The file is the function that `export` returns. Its metadata, JSON under "rllib_attention",
        say what the context is made of.

        Args:
            path: The file.

        Raises:
            ImportError: If a package of the extra `export` is missing.
            ValueError: As for `export`.
        """
        write_onnx(PolicyStep(self._parts), self._parts, path)

    def _act(
        self, obs: Mapping, actions: Mapping, rewards: Mapping, explore: bool, *, single: bool
    ) -> dict[Hashable, Any]:
        """Acts in some sessions. Whatever is wrong is found before any of them moves."""
        self._check_names(obs, actions, "prev_action")
        self._check_names(obs, rewards, "prev_reward")
        if not obs:
            return {}
        sessions, taken = [], []
        for name, observation in obs.items():
            self._spaces.check(name, observation)
            session = self._sessions.get(name) or Session(self._parts)
            action = actions.get(name)
            computed = None if action is None else self._spaces.computed(action)
            taken.append(session.before(name, computed, rewards.get(name)))
            sessions.append(session)
        self._sessions.update(zip(obs, sessions, strict=True))
        for session, observation, before in zip(sessions, obs.values(), taken, strict=True):
            session.observe(observation, before)
        computed, returned = self._pass.decide(tuple(obs), sessions, explore, single)
        for session, action in zip(sessions, computed, strict=True):
            session.taken = Taken(action)
        return dict(zip(obs, returned, strict=True))

    def _check_names(self, obs: Mapping, given: Any, what: str) -> None:
        if isinstance(given, Mapping) and given.keys() <= obs.keys():
            return
        raise ValueError(
            f"`{what}` expects {{session: ...}} with sessions of this call, {list(obs)[:5]}, got "
            f"{list(given)[:5] if isinstance(given, Mapping) else given!r}. Fix: "
            f"`act({{session: obs}}, {what}={{session: ...}})`."
        )

    def _decided(self) -> Decision:
        if self._pass.last is None:
            raise ValueError(
                "There is no decision to look at. Fix: call `policy.act(obs)` first; a `reset` "
                "with a history forgets it."
            )
        return self._pass.last
