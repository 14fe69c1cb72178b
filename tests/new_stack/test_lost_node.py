"""A Tune trial outlives the node of its learner: it starts again from its checkpoint, elsewhere."""

import json
import threading
import time

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster

from rllib_attention import use_attention
from tests.new_stack.test_life import SMALL, ppo

pytestmark = pytest.mark.slow
NUM_ITERATIONS = 8


@pytest.fixture
def cluster():
    """A head that runs nothing, and three nodes of two CPUs."""
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(3):
        cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def where_the_learner_is(algorithm):
    """Returns the id of the node of the one remote learner."""
    [found] = algorithm.learner_group.foreach_learner(
        lambda _: ray.get_runtime_context().get_node_id()
    )
    return found.get()


def log_node(path):
    """Returns a callback that writes each iteration's number and its learner's node."""

    def on_train_result(*, algorithm, result, **kwargs):
        row = {"iteration": result["training_iteration"], "node": where_the_learner_is(algorithm)}
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        # Checkpoints are written between iterations: leave the node time to be lost after one.
        time.sleep(1.0)

    return on_train_result


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def lose_node(cluster, path, lost):
    """Waits for three iterations and removes the learner's node without notice."""
    while len(rows(path)) < 3:
        time.sleep(0.1)
    node_id = rows(path)[-1]["node"]
    [node] = [node for node in cluster.worker_nodes if node.node_id == node_id]
    lost.append(node_id)
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.timeout(600)
def test_a_trial_starts_again_where_there_is_room(cluster, tmp_path):
    path, lost = tmp_path / "nodes", []
    config = ppo().env_runners(num_env_runners=1).learners(num_learners=1)
    config.callbacks(on_train_result=log_node(path))
    use_attention(config, SMALL)
    thread = threading.Thread(target=lose_node, args=(cluster, path, lost), daemon=True)
    thread.start()
    [result] = tune.Tuner(
        config.algo_class,
        param_space=config,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            stop={"training_iteration": NUM_ITERATIONS},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            failure_config=tune.FailureConfig(max_failures=3),
            verbose=0,
        ),
    ).fit()
    thread.join()
    assert result.error is None
    assert result.metrics["training_iteration"] == NUM_ITERATIONS
    seen = rows(path)
    first = next(i for i, row in enumerate(seen) if row["node"] != lost[0])
    # Not from the beginning, and nothing but what came after the latest checkpoint was lost.
    assert seen[first]["iteration"] >= seen[first - 1]["iteration"] - 1 > 1
    assert all(row["node"] != lost[0] for row in seen[first:])
    assert seen[-1]["iteration"] == NUM_ITERATIONS
