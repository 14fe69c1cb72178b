"""The two halves of an iteration, rollout and update, the same for both API stacks."""

from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.execution.train_ops import train_one_step
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME


def is_old_stack(algo: Algorithm) -> bool:
    """Returns whether an algorithm runs on RLlib's old API stack."""
    return not algo.config.enable_env_runner_and_connector_v2


def rollout(algo: Algorithm, steps: int) -> Any:
    """Samples from the local runner.

    Args:
        algo: On either stack.
        steps: Env steps.

    Returns:
        Episodes, on the old stack a batch: what a remote runner would ship.
    """
    if is_old_stack(algo):
        return synchronous_parallel_sample(
            worker_set=algo.env_runner_group, max_env_steps=steps, concat=True
        )
    return algo.env_runner.sample(num_timesteps=steps, random_actions=False)


def count_steps(data: Any) -> int:
    """Returns the env steps in what `rollout` returned, which may be a few more than asked for."""
    return sum(len(episode) for episode in data) if isinstance(data, list) else data.count


def update(algo: Algorithm, data: Any) -> None:
    """Does one whole PPO update: connectors, epochs, minibatches.

    Args:
        algo: On either stack.
        data: What `rollout` returned; the update may change it.
    """
    if is_old_stack(algo):
        train_one_step(algo, data.as_multi_agent())
    else:
        update_learners(algo.learner_group, algo.config, data)


def update_learners(learner_group: Any, config: Any, episodes: list) -> None:
    """Does one whole PPO update on the new stack.

    Args:
        learner_group: A local one.
        config: Its config.
        episodes: The update may change them.
    """
    learner_group.update(
        episodes=episodes,
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: count_steps(episodes)},
        num_epochs=config.num_epochs,
        minibatch_size=config.minibatch_size,
        shuffle_batch_per_epoch=True,
    )


def sync(algo: Algorithm) -> None:
    """Gives the runner the learner's weights; the old stack's local worker has them already."""
    if not is_old_stack(algo):
        algo.env_runner_group.sync_weights(from_worker_or_learner_group=algo.learner_group)
