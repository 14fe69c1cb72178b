"""Learners that lose no time between a gradient and its step.

An attention encoder has some 25 small tensors. RLlib's `TorchLearner` looks at each of them twice
for non-finite numbers, takes the norm of each, and steps each on its own.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import TorchCompileWhatToCompile
from ray.rllib.algorithms.ppo.ppo_learner import PPOLearner
from ray.rllib.core import COMPONENT_OPTIMIZER
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.metrics import ALL_MODULES
from torch import Tensor

from rllib_attention.compat import steps_otherwise
from rllib_attention.encoder.host_tags import tag_batch
from rllib_attention.log import get_logger
from rllib_attention.new_stack.connectors.attention_module import find_attention
from rllib_attention.new_stack.kl_noise import KLNoiseMixin
from rllib_attention.new_stack.param_groups import (
    ChangeState,
    load_state,
    merged_state,
    scale_groups,
    slow_parameters,
    split_groups,
    split_state,
)
from rllib_attention.new_stack.saved_options import (
    SAVED_OPTIONS,
    check_saved_options,
    options_of,
)

logger = get_logger(__name__)

# To type checkers, the learner that the mixin is put in front of.
_Base: Any = object
Gradients = dict[Any, Tensor]
# What RLlib takes for a norm that is not finite.
_LIMIT = 10e8


class AttentionLearnerMixin(_Base):
    """What `attention_learner` puts in front of a learner class.

    It changes how updates are computed, not which: methods that a learner class of the user's own
    overrides are left to it.
    """

    def build(self) -> None:
        """Builds the learner; compiles the encoders of its modules if the config asks for it.

        RLlib 2.60 would compile each module's `forward_train`, but asks their container whether it
        is a module that can be compiled, which it never is.
        """
        super().build()
        # The largest entry of each module's gradients, for each pass of an update; on the device.
        self._largest: dict[str, list[Tensor]] = {}
        config = self.config
        what = config.torch_compile_learner_what_to_compile
        if not config.torch_compile_learner or what != TorchCompileWhatToCompile.FORWARD_TRAIN:
            return
        known = find_attention(self.module)
        for encoder in (e for module in known.values() for e in module.encoders):
            encoder.compile(
                backend=config.torch_compile_learner_dynamo_backend,
                mode=config.torch_compile_learner_dynamo_mode,
            )

    def _update(self, batch: dict[str, Any], **kwargs: Any) -> Any:
        for of_module in batch.values():
            tag_batch(of_module)
        return super()._update(batch, **kwargs)

    def register_optimizer(self, *, optimizer: Any, **kwargs: Any) -> None:
        """Registers an optimizer; blocks get their rate, and Adam steps all at once.

        Args:
            optimizer: As for RLlib.
            **kwargs: As for RLlib.
        """
        split_groups(optimizer, slow_parameters(self.module))
        _fuse(optimizer)
        super().register_optimizer(optimizer=optimizer, **kwargs)
        # RLlib has set one learning rate for all groups.
        scale_groups(optimizer)

    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Returns RLlib's state and the options that its weights are trained with.

        Args:
            components: As for RLlib; the options come with a state that is not limited by it.
            **kwargs: As for RLlib.
        """
        state = super().get_state(components, **kwargs)
        state = self._with_optimizers(state, merged_state)
        return state if components else state | {SAVED_OPTIONS: options_of(self.module)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a state, whichever learner has written it.

        Args:
            state: From `get_state`.

        Raises:
            ValueError: If its weights were trained with options of attention that would make them
                compute something else here.
        """
        check_saved_options(state.get(SAVED_OPTIONS, {}), self.module)
        super().set_state(self._with_optimizers(state, split_state))
        # Ray 2.55 turns numbers into tensors on the way, and loses all moments.
        self._with_optimizers(state, load_state)
        for _, _, optimizer in self._optimizers():
            _fuse(optimizer)

    def _with_optimizers(self, state: dict[str, Any], change: ChangeState) -> dict[str, Any]:
        """Returns a learner's state with those of its optimizers changed."""
        if COMPONENT_OPTIMIZER not in state:
            return state
        saved = dict(state[COMPONENT_OPTIMIZER])
        for module_id, name, optimizer in self._optimizers():
            key = f"{module_id}_{name}"  # as RLlib joins them
            if key in saved:
                saved[key] = saved[key] | {"state": change(saved[key]["state"], optimizer)}
        return state | {COMPONENT_OPTIMIZER: saved}

    def postprocess_gradients_for_module(
        self, *, module_id: str, config: Any = None, module_gradients_dict: Gradients
    ) -> Gradients:
        """Clips gradients, or logs their norm, as RLlib does; by the global norm in few kernels.

        Args:
            module_id: As for RLlib.
            config: As for RLlib.
            module_gradients_dict: As for RLlib.

        Returns:
            The gradients.
        """
        is_rllibs = _is(super().postprocess_gradients_for_module, Learner)
        is_global = config.grad_clip_by == "global_norm" if config.grad_clip else True
        if not (is_rllibs and is_global and (config.grad_clip or config.log_gradients)):
            return super().postprocess_gradients_for_module(
                module_id=module_id, config=config, module_gradients_dict=module_gradients_dict
            )
        for name, optimizer in self.get_optimizers_for_module(module_id):
            found = self.filter_param_dict_for_optimizer(module_gradients_dict, optimizer)
            gradients = [gradient.detach() for gradient in found.values()]
            norm = global_norm(gradients)
            if config.grad_clip and gradients:
                torch._foreach_mul_(gradients, (config.grad_clip / (norm + 1e-6)).clamp(max=1.0))
            key = (module_id, f"gradients_{name}_global_norm")
            self.metrics.log_value(key=key, value=norm, window=1)
        return module_gradients_dict

    def apply_gradients(self, gradients_dict: Gradients) -> None:
        """Steps all optimizers.

        RLlib reads of each gradient whether it is finite, puts numbers in the place of what is not,
        says so, and steps. Here the same numbers are put there unseen, which changes no finite
        gradient, and what was not finite is read once, after all minibatches of an update.

        Args:
            gradients_dict: Gradients by parameter.
        """
        for parameter, gradient in gradients_dict.items():
            parameter.grad = gradient
        is_rllibs = _is(super().apply_gradients, TorchLearner)
        if not is_rllibs or steps_otherwise(self.config):
            return super().apply_gradients(gradients_dict)
        found: dict[str, list[Tensor]] = {}
        for module_id, _, optimizer in self._optimizers():
            parameters = (p for group in optimizer.param_groups for p in group["params"])
            gradients = [p.grad for p in parameters if p.grad is not None]
            largest = torch._foreach_norm(gradients, math.inf) if gradients else []
            found.setdefault(module_id, []).extend(largest)
            for gradient in gradients:
                gradient.nan_to_num_()
            optimizer.step()
        for module_id, largest in found.items():
            if largest:
                self._largest.setdefault(module_id, []).append(torch.stack(largest).max())
        return None

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Ends training if gradients were not finite, and does what RLlib does.

        Args:
            timesteps: As for RLlib.

        Raises:
            ValueError: If they were not, and the module's options have `check_finite` on; else a
                warning says so.
        """
        largest, self._largest = self._largest, {}
        known = find_attention(self.module)
        for module_id, of_passes in largest.items():
            is_finite = torch.stack(of_passes).isfinite().tolist()
            if not all(is_finite):
                found = known.get(module_id)
                goes_on = found is None or not found.attention.check_finite
                _say_not_finite(module_id, is_finite, goes_on)
        super().after_gradient_based_update(timesteps=timesteps)
        # RLlib has set the schedule's learning rate for all groups.
        for _, _, optimizer in self._optimizers():
            scale_groups(optimizer)

    def _optimizers(self) -> Iterator[tuple[str, str, Any]]:
        """Yields the module's id, the optimizer's name within it, and the optimizer."""
        for module_id in (*self.module.keys(), ALL_MODULES):
            for name, optimizer in self.get_optimizers_for_module(module_id):
                yield module_id, name, optimizer


_learners: dict[type[Learner], type[Learner]] = {}


def attention_learner(learner_class: type[Learner]) -> type[Learner]:
    """Returns a learner class that steps many small tensors at once.

    Args:
        learner_class: An algorithm's learner class, or your own subclass of it.

    Returns:
        A subclass of it, the same one for the same class; a class that is no `TorchLearner` as it
        is.
    """
    is_torch = isinstance(learner_class, type) and issubclass(learner_class, TorchLearner)
    if not is_torch or issubclass(learner_class, AttentionLearnerMixin):
        return learner_class
    if learner_class not in _learners:
        name = f"Attention{learner_class.__name__}"
        body = {"__doc__": f"{learner_class.__name__} for attention.", "__module__": __name__}
        mixins = (KLNoiseMixin,) if issubclass(learner_class, PPOLearner) else ()
        bases = (*mixins, AttentionLearnerMixin, learner_class)
        _learners[learner_class] = type(name, bases, body)
    return _learners[learner_class]


def _say_not_finite(module_id: str, is_finite: list[bool], goes_on: bool) -> None:
    said = (
        f"Gradients of RLModule {module_id!r} were not finite (NaN or infinity), first in pass "
        f"{is_finite.index(False) + 1} of {len(is_finite)} of this update: expected finite "
        "rewards, actions and losses."
    )
    if not goes_on:
        raise ValueError(
            f"{said} Fix: correct what the environment gives, or lower the learning rate; "
            "`use_attention(config, check_finite=False)` goes on with zeros in their place."
        )
    logger.warning("%s Training goes on with zeros, or the largest numbers, in their place.", said)


def _fuse(optimizer: Any) -> None:
    """Lets an Adam that was built without a say about it step all its tensors in one kernel."""
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
        return
    for group in optimizer.param_groups:
        is_open = group["fused"] is None and group["foreach"] is None
        is_open &= not (group["differentiable"] or group["capturable"])
        kinds = {(p.device.type, p.is_floating_point()) for p in group["params"]}
        if is_open and kinds <= {("cpu", True), ("cuda", True)}:
            group["fused"] = True


def _is(method: Any, owner: type) -> bool:
    """Returns whether a bound method is that of a class, overridden by none between."""
    return method.__func__ is getattr(owner, method.__name__)


def global_norm(gradients: list[Tensor]) -> Tensor:
    """Returns the norm of all gradients as one vector: RLlib's `compute_global_norm`.

    Args:
        gradients: The gradients, on one device.
    """
    if not gradients:
        return torch.tensor(0.0)
    norms = torch.stack(torch._foreach_norm(gradients)).nan_to_num(neginf=-_LIMIT, posinf=_LIMIT)
    return torch.linalg.vector_norm(norms).nan_to_num(neginf=-_LIMIT, posinf=_LIMIT)
