"""A lack of memory is told from other errors."""

import pytest
import torch

from fl.memory import is_out_of_memory

PIB = 2**50


def raised(work):
    with pytest.raises(Exception) as caught:  # noqa: PT011, which is the question here
        work()
    return caught.value


@pytest.mark.parametrize("work", [lambda: torch.empty(PIB, dtype=torch.uint8), lambda: bytearray(PIB)])
def test_allocations_that_cannot_be_met_are_recognised(work):
    assert is_out_of_memory(raised(work))


def test_the_error_of_a_gpu_is_recognised():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


@pytest.mark.parametrize("work", [lambda: torch.ones(2) @ torch.ones(3), lambda: {}["key"]])
def test_other_errors_are_not(work):
    assert not is_out_of_memory(raised(work))
