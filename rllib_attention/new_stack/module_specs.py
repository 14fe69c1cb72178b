"""The module specs of a config: which modules there are, and the same ones with attention."""

import copy
import dataclasses
from collections.abc import Collection
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.models.catalog import Catalog
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_attention.compat import (
    as_dict,
    spec_model_config,
    user_model_config,
    user_module_spec,
)
from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.catalog import (
    ATTENTION,
    AttentionCatalogMixin,
    attention_catalog,
    attention_config,
)
from rllib_attention.new_stack.algorithms import catalog_for

MAX_SEQ_LEN = "max_seq_len"
_DEFAULT_LENGTH = DefaultModelConfig().max_seq_len


def has_many_modules(config: AlgorithmConfig) -> bool:
    """Returns whether a config names its modules: in a multi-agent set-up, or in a multi spec.

    Args:
        config: A config of the new API stack.
    """
    return config.is_multi_agent or isinstance(user_module_spec(config), MultiRLModuleSpec)


def known_modules(config: AlgorithmConfig) -> list[str]:
    """Returns the ids of all modules that a config names, sorted.

    Args:
        config: A config of the new API stack.
    """
    spec = user_module_spec(config)
    ids = set(spec.rl_module_specs) if isinstance(spec, MultiRLModuleSpec) else set()
    if config.is_multi_agent or not ids:
        ids |= set(config.policies)
    return sorted(ids)


def spec_of(config: AlgorithmConfig, module_id: str) -> RLModuleSpec:
    """Returns the user's spec of a module, an empty one if there is none.

    Args:
        config: A config of the new API stack.
        module_id: One of `known_modules`.
    """
    spec = user_module_spec(config)
    if isinstance(spec, MultiRLModuleSpec):
        spec = spec.rl_module_specs.get(module_id)
    return spec or RLModuleSpec()


def model_config_of(config: AlgorithmConfig, module_id: str) -> dict[str, Any]:
    """Returns the `model_config` that RLlib will hand to a module.

    Args:
        config: A config of the new API stack.
        module_id: One of `known_modules`.
    """
    return config.model_config | spec_model_config(spec_of(config, module_id))


def module_options(config: AlgorithmConfig) -> dict[str, AttentionConfig]:
    """Returns the options of each module with attention.

    Args:
        config: A config without open search spaces.
    """
    found = {mid: attention_config(model_config_of(config, mid)) for mid in known_modules(config)}
    return {
        module_id: attention
        for module_id, attention in found.items()
        if attention is not None and uses_attention(config, module_id)
    }


def uses_attention(config: AlgorithmConfig, module_id: str) -> bool:
    """Returns whether a module has an attention catalog, and options for it.

    Args:
        config: A config of the new API stack.
        module_id: One of `known_modules`.
    """
    catalog_class = spec_of(config, module_id).catalog_class
    is_ours = isinstance(catalog_class, type) and issubclass(catalog_class, AttentionCatalogMixin)
    return is_ours and ATTENTION in model_config_of(config, module_id)


def given_max_seq_len(config: AlgorithmConfig, module_id: str) -> Any:
    """Returns the `max_seq_len` that the user gave a module in a `model_config`, None if none.

    A `DefaultModelConfig` always has one. Its default, 20, is taken for not given, since it cannot
    be told from a 20 that the user wrote; a dict says what it says.

    Args:
        config: A config of the new API stack.
        module_id: One of `known_modules`.
    """
    for model_config in (spec_of(config, module_id).model_config, user_model_config(config)):
        given = as_dict(model_config)
        length = given.get(MAX_SEQ_LEN)
        is_default = isinstance(model_config, DefaultModelConfig) and length == _DEFAULT_LENGTH
        # Beside attention it is that of an earlier call, for other modules.
        if length is not None and not is_default and ATTENTION not in given:
            return length
    return None


def with_attention(
    config: AlgorithmConfig, module_ids: Collection[str] | None, own: dict[str, Any]
) -> RLModuleSpec | MultiRLModuleSpec:
    """Returns a copy of the user's spec in which modules have the attention catalog.

    Args:
        config: The user's config; left as it is.
        module_ids: The modules of a multi-agent set-up that get attention; None for all.
        own: What goes into these modules' own `model_config`; empty if it goes into that of all
            modules (`config.rl_module(model_config=...)`).

    Raises:
        ValueError: If a module is no RLlib default (or a subclass), or its catalog does not belong
            to it.
    """
    given = user_module_spec(config)
    if module_ids is None and not isinstance(given, MultiRLModuleSpec):
        return _with_catalog(config, DEFAULT_MODULE_ID, own)
    # RLlib looks for all modules in a multi spec, also for those that it describes by default.
    specs = {mid: copy.deepcopy(spec_of(config, mid)) for mid in known_modules(config)}
    for module_id in known_modules(config) if module_ids is None else sorted(module_ids):
        specs[module_id] = _with_catalog(config, module_id, own)
    # Not `dataclasses.replace`: a deprecated field of the class refuses it.
    multi = MultiRLModuleSpec(rl_module_specs={}) if isinstance(given, RLModuleSpec) else given
    result = copy.copy(multi or MultiRLModuleSpec(rl_module_specs={}))
    result.rl_module_specs = specs
    return result


def _with_catalog(config: AlgorithmConfig, module_id: str, own: dict[str, Any]) -> RLModuleSpec:
    spec = spec_of(config, module_id)
    changes: dict[str, Any] = {"catalog_class": _attention_catalog_for(config, module_id)}
    if own or spec.model_config is not None:
        # A spec's own `model_config` comes before that of all modules.
        kept = {k: v for k, v in as_dict(spec.model_config).items() if k != MAX_SEQ_LEN}
        changes["model_config"] = kept | own
    return dataclasses.replace(spec, **changes)


def _attention_catalog_for(config: AlgorithmConfig, module_id: str) -> type[Catalog]:
    spec = spec_of(config, module_id)
    module_class = spec.module_class or _default_module_class(config)
    name = getattr(module_class, "__name__", repr(module_class))
    needed = catalog_for(module_class)
    if needed is None:
        raise ValueError(
            "`use_attention` builds attention into RLlib's default RLModules, but module "
            f"{module_id!r} is of class {name}. In an RLModule "
            "of your own, build an `AttentionEncoder` (see `AttentionEncoderConfig`), or derive it "
            "from the algorithm's default module." + _other_modules(config, module_id)
        )
    given = spec.catalog_class
    if given is not None and not (isinstance(given, type) and issubclass(given, needed)):
        raise ValueError(
            f"{name} needs a catalog derived from {needed.__name__}, got "
            f"{getattr(given, '__name__', given)!r}. Use "
            f"`config.rl_module(rl_module_spec=RLModuleSpec(catalog_class={needed.__name__}))`, or "
            "leave `catalog_class` out."
        )
    return attention_catalog(given or needed)


def _default_module_class(config: AlgorithmConfig) -> Any:
    try:
        return getattr(config.get_default_rl_module_spec(), "module_class", None)
    except NotImplementedError:  # in algorithms that leave the module to the user
        return None


def _other_modules(config: AlgorithmConfig, module_id: str) -> str:
    others = [mid for mid in known_modules(config) if mid != module_id]
    if not others:
        return ""
    return f" To leave this module as it is, use `use_attention(config, module_ids={others})`."
