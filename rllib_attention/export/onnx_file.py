"""A policy's step as an ONNX file, which says itself what it must be given."""

import importlib.util
import json
import os
from pathlib import Path

import torch

from rllib_attention.export.policy_step import NEXT_NAME, PolicyStep, export_step
from rllib_attention.new_stack.policy_parts import PolicyParts

METADATA = "rllib_attention"
"""The key of the file's metadata, a JSON object."""


@torch.no_grad()
def write_onnx(step: PolicyStep, parts: PolicyParts, path: str | os.PathLike) -> None:
    """Writes a policy's step.

    Args:
        step: The step.
        parts: What its policy is made of.
        path: The file.

    Raises:
        ImportError: If a package of the extra `export` is missing.
    """
    missing = [name for name in ("onnx", "onnxscript") if not importlib.util.find_spec(name)]
    if missing:
        raise ImportError(
            f"`export_onnx` needs {' and '.join(missing)}, not installed here. Fix: "
            '`pip install "rllib-attention[export]"`.'
        )
    example = step.example(2)
    # Tensors in a dict go in and out in the order of its keys.
    program = torch.onnx.export(
        export_step(step),
        input_names=list(example),
        output_names=list(step(example)),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(_metadata(step, parts))
    program.save(Path(path))


def _metadata(step: PolicyStep, parts: PolicyParts) -> dict:
    """Returns what a file says of itself."""
    context = {
        name: {
            "shape": list(shape),
            "dtype": str(dtype).removeprefix("torch."),
            "next": NEXT_NAME.format(name),
        }
        for name, (shape, dtype) in step.context.items()
    }
    attention = step.attention
    return {
        "context": context,
        "structure": step.structure(),
        "context_len": attention.context_len,
        "attention": attention.to_dict(),
        "observation_space": str(parts.observation_space),
        "action_space": str(parts.action_space),
    }
