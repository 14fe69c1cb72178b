"""The insides of runners, catalogs and distributions that RLlib has built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.connectors.connector_v2 import ConnectorV2
    from ray.rllib.core.distribution.distribution import Distribution
    from ray.rllib.core.models.catalog import Catalog
    from ray.rllib.env.env_runner import EnvRunner


def env_to_module_pieces(runner: EnvRunner | None) -> list[ConnectorV2]:
    """Return the pieces of a runner's env-to-module pipeline.

    `rllib/env/single_agent_env_runner.py` and `multi_agent_env_runner.py`.

    Args:
        runner: The runner; None, or one of the user's without a pipeline, has no pieces.
    """
    return list(getattr(getattr(runner, "_env_to_module", None), "connectors", ()))


def catalog_model_config(catalog: Catalog) -> dict[str, Any]:
    """Return a catalog's model config, RLlib's defaults included.

    `rllib/core/models/catalog.py`.

    Args:
        catalog: A built catalog.
    """
    return catalog._model_config_dict


def child_distributions(distribution: Distribution) -> list[Distribution]:
    """Return the parts of a nested action's distribution, in the order of `tree.flatten`.

    `TorchMultiDistribution` in `rllib/core/distribution/torch/torch_distribution.py`.

    Args:
        distribution: The distribution.
    """
    return distribution._flat_child_distributions
