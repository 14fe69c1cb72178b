"""What the old stack's model refuses when it is built or run."""

import gymnasium as gym
from ray.rllib.models.torch.torch_modelv2 import TorchModelV2
from torch import Tensor

from rllib_attention.old_stack import NEW_STACK

_STATE_HELP = (
    "Rollouts start from `state=policy.get_initial_state()` and go on with the state that "
    "`compute_single_action` returns. If this happened in training: of the old API stack's "
    f"algorithms only PPO, APPO and IMPALA train models with a state; with another one, use "
    f"{NEW_STACK}."
)


def check_algorithm(
    model_class: type, own_class: type[TorchModelV2], num_outputs: int | None
) -> None:
    """Checks that the algorithm that builds a model will give it a state.

    Args:
        model_class: The class that RLlib builds: `own_class`, maybe with an interface mixed in.
        own_class: The attention model.
        num_outputs: As RLlib gives them to the model.

    Raises:
        ValueError: If it will not.
    """
    interfaces = [
        base.__name__
        for base in model_class.__mro__
        if issubclass(base, TorchModelV2)
        and base is not TorchModelV2
        and not issubclass(base, own_class)
    ]
    # SAC and CQL build their model without outputs, DQN mixes an interface in.
    if num_outputs is None or interfaces:
        user = interfaces[0] if interfaces else "the model of SAC or CQL"
        raise ValueError(
            f"The attention model cannot serve as {user}, which gets neither a state nor sequences "
            "on the old API stack: expected PPO, APPO or IMPALA. With another algorithm, use "
            f"{NEW_STACK}."
        )


def check_observation_space(space: gym.Space) -> None:
    """Checks that RLlib has a tokenizer for a space.

    Args:
        space: Space of preprocessed observations.

    Raises:
        ValueError: If it has none.
    """
    if isinstance(space, gym.spaces.Box) and len(space.shape) in (1, 3):
        return
    fix = "reshape it in an environment wrapper"
    if not isinstance(space, gym.spaces.Box):
        fix = "leave RLlib's preprocessors on: `_disable_preprocessor_api=False`"
    raise ValueError(
        "The attention model needs preprocessed observations, Box of 1 or 3 dimensions, got "
        f"{space}. Fix: {fix}."
    )


def check_state(expected: tuple[int, int], state: list[Tensor], seq_lens: Tensor | None) -> None:
    """Checks that a forward pass has a state and knows how long its sequences are.

    Args:
        expected: Shape of a state, (R, P).
        state: As RLlib gives it to the model.
        seq_lens: Likewise.

    Raises:
        ValueError: If not.
    """
    shapes = [tuple(x.shape[1:]) for x in state]
    if shapes != [expected] or seq_lens is None:
        given = f"states of shapes {shapes}" if state else "no state"
        raise ValueError(
            f"The attention model expects one state of shape {expected} for each sequence, and "
            f"sequence lengths; got {given} and seq_lens {seq_lens}. {_STATE_HELP}"
        )
