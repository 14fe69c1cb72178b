"""Results are kept for what a tensor holds, and no longer than it lives."""

import gc
import weakref

import torch

from rllib_attention.encoder.tensor_memo import TensorMemo


class Result:
    """Something that a weak reference can look at."""


def test_a_result_is_that_of_the_tensor_itself():
    memo, tensor = TensorMemo(), torch.zeros(3)
    assert memo.get(tensor) is None
    memo.put(tensor, "result")
    assert memo.get(tensor) == "result"
    assert memo.get(tensor.clone()) is None, "an equal tensor is another one"


def test_what_was_written_to_has_no_result():
    memo, tensor = TensorMemo(), torch.zeros(3)
    memo.put(tensor, "result")
    tensor[0] = 1
    assert memo.get(tensor) is None


def test_another_state_has_no_result():
    memo, tensor = TensorMemo(), torch.zeros(3)
    memo.put(tensor, "result", ("a", 1))
    assert memo.get(tensor, ("a", 1)) == "result"
    assert memo.get(tensor, ("a", 2)) is None


def test_results_go_with_their_tensors():
    memo, tensor, result = TensorMemo(), torch.zeros(3), Result()
    memo.put(tensor, result)
    seen = weakref.ref(result)
    del tensor, result
    gc.collect()
    assert seen() is None


def test_inference_tensors_are_left_out():
    """Nobody counts what is written to them."""
    memo = TensorMemo()
    with torch.inference_mode():
        tensor = torch.zeros(3)
    memo.put(tensor, "result")
    assert memo.get(tensor) is None
