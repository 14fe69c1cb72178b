"""Recording complete episodes of a trained policy, for the offline examples."""

from pathlib import Path

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


def record_episodes(
    config: AlgorithmConfig, checkpoint: Path, folder: Path, *, episodes: int, explore: bool
) -> Path:
    """Plays a trained policy and writes its episodes.

    Args:
        config: The config that the policy was trained with.
        checkpoint: The trained algorithm.
        folder: Where to write. RLlib makes folders of its own in it.
        episodes: How many episodes to play.
        explore: Whether actions are drawn, rather than the best ones taken.

    Returns:
        The folder below `folder` that holds all the episodes.
    """
    config = config.copy(copy_frozen=False)
    # Whole episodes: whoever reads them must find each step's true past.
    config.env_runners(num_env_runners=0, batch_mode="complete_episodes")
    config.offline_data(output=str(folder), output_write_episodes=True)
    algo = config.build_algo()
    algo.restore_from_path(str(checkpoint))
    played = algo.env_runner.sample(num_episodes=episodes, explore=explore)
    algo.stop()
    value = sum(episode.get_return() for episode in played) / len(played)
    print(f"recorded {len(played)} episodes, mean return {value:.3f}", flush=True)
    # One folder, below the name of the environment.
    return next(folder.iterdir())


def train_expert(config: AlgorithmConfig, path: Path, *, enough: float, iterations: int) -> Path:
    """Trains a policy to record.

    Args:
        config: Its config.
        path: Where the checkpoint goes.
        enough: Mean return at which training ends.
        iterations: Iterations after which it ends in any case.

    Returns:
        The checkpoint.
    """
    algo = config.build_algo()
    for _ in range(iterations):
        value = algo.train()["env_runners"].get("episode_return_mean", float("nan"))
        print(f"expert  return {value:8.3f}", flush=True)
        if value >= enough:
            break
    algo.save_to_path(str(path))
    algo.stop()
    return path
