"""A policy's step as one function of tensors: for `torch.export` and ONNX."""

from rllib_attention.export.onnx_file import write_onnx
from rllib_attention.export.policy_step import PolicyStep, export_step

__all__ = ["PolicyStep", "export_step", "write_onnx"]
