"""What was built, in one line for the user."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from torch import nn

from rllib_attention.log import get_logger
from rllib_attention.new_stack.connectors.attention_module import inspect_module

logger = get_logger(__name__)


@dataclass(frozen=True)
class ModuleSummary:
    """What there is of attention in one module of a learner.

    Attributes:
        num_encoders: Attention encoders that are trained: one for actor and critic, or one each.
        num_targets: Their copies in target networks.
        encoder_parameters: Trained weights of the encoders, tokenizers included.
        parameters: Trained weights of the whole module.
        context_len: Steps before the current one that an output depends on.
        max_seq_len: Steps of a training chunk.
    """

    num_encoders: int
    num_targets: int
    encoder_parameters: int
    parameters: int
    context_len: int
    max_seq_len: int

    def __str__(self) -> str:
        """Returns it in words."""
        targets = f" and {_count(self.num_targets, 'target copy')}" if self.num_targets else ""
        return (
            f"{_count(self.num_encoders, 'encoder')}{targets}, {self.encoder_parameters:,} of "
            f"{self.parameters:,} parameters, context of {_count(self.context_len, 'step')}, "
            f"chunks of {_count(self.max_seq_len, 'step')}"
        )


def log_summary(algorithm: Algorithm) -> None:
    """Logs what attention an algorithm's learners have.

    Args:
        algorithm: A built algorithm.
    """
    # The learners' modules are complete: those of env runners may lack critics and targets.
    results = algorithm.learner_group.foreach_learner(summarize_learner)
    summaries: dict[str, ModuleSummary] = next((r.get() for r in results if r.ok), {})
    if summaries:
        logger.info("%s with attention: %s.", type(algorithm).__name__, in_words(summaries))


def in_words(summaries: Mapping[str, ModuleSummary]) -> str:
    """Returns the summaries of several modules as one line; what is alike is said once.

    Args:
        summaries: By module id.
    """
    alike: dict[ModuleSummary, list[str]] = {}
    for module_id, summary in sorted(summaries.items()):
        alike.setdefault(summary, []).append(repr(module_id))
    return "; ".join(
        f"{', '.join(ids)} {'have' if len(ids) > 1 else 'has'} {summary}"
        + (" each" if len(ids) > 1 else "")
        for summary, ids in alike.items()
    )


def summarize_learner(learner: Learner) -> dict[str, ModuleSummary]:
    """Returns what attention the modules of a learner have, by module id.

    Args:
        learner: A built learner.
    """
    return summarize_modules(learner.module)


def summarize_modules(modules: MultiRLModule) -> dict[str, ModuleSummary]:
    """Returns what attention there is, by module id; modules without are left out.

    Args:
        modules: A learner's modules.
    """
    found = {}
    for module_id, module in modules.items():
        known = inspect_module(module)
        if known is None:
            continue
        trained = [encoder for encoder in known.encoders if not encoder.is_target]
        found[module_id] = ModuleSummary(
            num_encoders=len(trained),
            num_targets=len(known.encoders) - len(trained),
            encoder_parameters=_num_trained(trained),
            parameters=_num_trained([module.unwrapped()]),
            context_len=known.attention.context_len,
            max_seq_len=known.max_seq_len,
        )
    return found


def _num_trained(parts: Iterable[nn.Module]) -> int:
    weights = {weight for part in parts for weight in part.parameters() if weight.requires_grad}
    return sum(weight.numel() for weight in weights)


def _count(number: int, what: str) -> str:
    if number != 1:
        what = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number:,} {what}"
