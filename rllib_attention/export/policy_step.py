"""A policy's step as a function of tensors: observations and context in, actions and context out.

Shapes: B batch, A row of a previous action and reward, P past steps of a layer, H heads,
E head size, depth how many rows the features of a step reach back to.
"""

import copy

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.encoder import AttentionEncoder
from rllib_attention.encoder.inputs import RolloutStep
from rllib_attention.encoder.prev_inputs import PREV_ACTIONS, PREV_REWARDS
from rllib_attention.export.named import NamedSpace
from rllib_attention.export.pieces import action_changes, observation_changes
from rllib_attention.new_stack.connectors.attention_module import AttentionModule, inspect_module
from rllib_attention.new_stack.policy_parts import PolicyParts
from rllib_attention.nn import ContextStep

# Names in the context: steps so far, rows of earlier actions and rewards, keys and values.
_STEPS, _ROWS, _LAYER = "steps", "prev", "layer_{}"
NEXT_NAME = "next_{}"
"""How what belongs into the context of the next step is called."""


class PolicyStep(nn.Module):
    """One step of a policy's sessions, a session in each row, as the Algorithm evaluates it.

    Everything is a tensor in a dict. Given are `obs` (`obs.x` and `obs.y` for a Dict space of x and
    y), `prev_actions` and `prev_rewards` where the module reads them, and the context: `steps`,
    `layer_0`, … A row of zeros in each part of the context is a new session. Returned are
    `action_dist_inputs` (not by DQN), `actions` as the module counts them, which are the next
    step's `prev_actions`, `actions_for_env`, and the next context, `next_steps`, `next_layer_0`, …

    Args:
        parts: What the policy is made of; the module is copied.

    Attributes:
        context: The shape and the type of a row of each part of the context.

    Raises:
        ValueError: If a space or a connector piece cannot be exported.
    """

    def __init__(self, parts: PolicyParts):
        super().__init__()
        self._obs = NamedSpace(Columns.OBS, parts.observation_space)
        self._actions = NamedSpace(Columns.ACTIONS, parts.action_space)
        self._prev_actions = NamedSpace(PREV_ACTIONS, parts.action_space)
        self._for_env = NamedSpace(Columns.ACTIONS_FOR_ENV, parts.action_space)
        self._change_obs = observation_changes(parts)
        self._change_actions = action_changes(parts)
        self.module = copy.deepcopy(parts.module).unwrapped().eval()
        found = inspect_module(self.module)
        assert found is not None  # a policy's module has attention
        self._attention: AttentionModule = found
        self._prev_inputs = found.prev_inputs
        encoder, *others = found.encoders
        self._step = _EncoderStep(encoder)
        encoder.attach(self._step, "the exported module")
        for other in others:
            other.attach(_NoStep(), "the exported module")
        self.context = self._context()

    @property
    def attention(self) -> AttentionConfig:
        """The module's options."""
        return self._attention.attention

    def structure(self) -> dict:
        """Returns names nested as observations and actions are, and shapes, for JSON."""
        given = [self._obs, *([self._prev_actions] if self._prev_inputs.num_actions else [])]
        return {
            Columns.OBS: self._obs.nested_names(),
            Columns.ACTIONS_FOR_ENV: self._for_env.nested_names(),
            "shapes": {
                name: list(part.shape or ())
                for space in given
                for name, part in zip(space.names, space.parts, strict=True)
            },
        }

    def example(self, batch_size: int) -> dict[str, Tensor]:
        """Returns inputs of the right shapes, those of new sessions: zeros.

        Args:
            batch_size: Sessions B.
        """
        context = {
            name: torch.zeros((batch_size, *shape), dtype=dtype)
            for name, (shape, dtype) in self.context.items()
        }
        prev = self._prev_actions.example(batch_size) if self._prev_inputs.num_actions else {}
        if self._prev_inputs.num_rewards:
            prev[PREV_REWARDS] = torch.zeros(batch_size)
        return {**self._obs.example(batch_size), **prev, **context}

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Runs one step. See the class docstring."""
        obs = self._obs.nested(inputs)
        for change in self._change_obs:
            obs = change(obs)
        steps = inputs[_STEPS]
        rows = self._rows(inputs)
        self._step.before = steps, [inputs[name] for name in self._layers()]
        state = RolloutStep(steps[:, None], self._stacked(rows, steps)).to_state()
        outputs = self.module.forward_inference(
            {Columns.OBS: obs, Columns.STATE_IN: self._attention.state(state)}
        )
        return self._named(outputs) | self._next_context(steps, rows)

    def _named(self, outputs: dict) -> dict[str, Tensor]:
        """Returns actions and what they come from, by name."""
        named = {}
        if Columns.ACTION_DIST_INPUTS in outputs:
            named[Columns.ACTION_DIST_INPUTS] = outputs[Columns.ACTION_DIST_INPUTS]
        if Columns.ACTIONS in outputs:
            actions = outputs[Columns.ACTIONS]
        else:
            kind = self.module.get_inference_action_dist_cls()
            logits = outputs[Columns.ACTION_DIST_INPUTS]
            actions = kind.from_logits(logits).to_deterministic().sample()
        for_env = actions
        for change in self._change_actions:
            for_env = change(for_env)
        return named | self._actions.named(actions) | self._for_env.named(for_env)

    def _next_context(self, steps: Tensor, rows: Tensor | None) -> dict[str, Tensor]:
        cap = max(self._step.past_steps, self._prev_inputs.depth)
        context = {_STEPS: (steps + 1).clamp(max=cap)}
        if _ROWS in self.context:
            assert rows is not None
            context[_ROWS] = rows[:, 1:]
        context |= dict(zip(self._layers(), self._step.after, strict=True))
        return {NEXT_NAME.format(name): tensor for name, tensor in context.items()}

    def _rows(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """Returns the rows of actions and rewards that the step reads, (B, depth, A)."""
        prev = self._prev_inputs
        if not prev.size:
            return None
        actions = self._prev_actions.nested(inputs) if prev.num_actions else None
        batch_size = inputs[_STEPS].shape[0]  # `len` would make it a constant
        newest = prev.tensor_rows(actions, inputs.get(PREV_REWARDS), (batch_size,))[:, None]
        return torch.cat((inputs[_ROWS], newest), 1) if _ROWS in self.context else newest

    def _stacked(self, rows: Tensor | None, steps: Tensor) -> Tensor | None:
        """Stacks the rows, (B, size), with that of the start before an episode's first action."""
        if rows is None:
            return None
        age = torch.arange(rows.shape[1], 0, -1)[:, None]  # steps since, 1 for the newest
        none = torch.from_numpy(self._prev_inputs.none)
        rows = torch.where(age > steps[:, None, None], none, rows)
        return self._prev_inputs.stack(rows)[:, 0]

    def _layers(self) -> list[str]:
        return [_LAYER.format(number) for number in range(len(self._step.past_shapes))]

    def _context(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        prev = self._prev_inputs
        context: dict[str, tuple[tuple[int, ...], torch.dtype]] = {_STEPS: ((), torch.int64)}
        if prev.depth > 1:
            context[_ROWS] = ((prev.depth - 1, prev.row_size), torch.float32)
        shapes = zip(self._layers(), self._step.past_shapes, strict=True)
        return context | {name: (shape, torch.float32) for name, shape in shapes}


class _EncoderStep:
    """Takes the place of an encoder's rollout cache: the past is given, and handed back.

    Args:
        encoder: The encoder that acts.
    """

    def __init__(self, encoder: AttentionEncoder):
        self._embedding = encoder.embedding
        self._run = ContextStep(encoder.transformer)
        self.past_shapes, self.past_steps = self._run.past_shapes, self._run.past_steps
        self.before: tuple[Tensor, list[Tensor]]
        self.after: list[Tensor] = []

    def forward(self, obs: Tensor, step: RolloutStep) -> Tensor:
        """Computes the current step, (B, *obs) → (B, D)."""
        out, self.after = self._run(self._embedding(obs, step.prev), *self.before)
        return out


class _NoStep:
    """Stands behind the encoders that do not act."""

    def forward(self, obs: Tensor, step: RolloutStep) -> Tensor:
        """Raises: a second encoder would need a context of its own."""
        raise ValueError(
            "A policy can be exported if its module acts with one attention encoder, but this one "
            "calls a second. Fix: act with `AttentionPolicy` itself."
        )


@torch.no_grad()
def export_step(step: PolicyStep) -> torch.export.ExportedProgram:
    """Exports a policy's step with a dynamic batch.

    Args:
        step: The step.
    """
    example = step.example(2)
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} for name in example}
    return torch.export.export(step, (example,), dynamic_shapes=(shapes,))
