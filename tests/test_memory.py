"""Real allocations that fail."""

import numpy as np
import pytest
import torch

from dtmd.errors import DtmdError
from dtmd.memory import enough_memory


@pytest.mark.parametrize("allocate", [
    lambda: torch.empty(1 << 55, dtype=torch.float64), lambda: np.empty(1 << 55), lambda: bytearray(1 << 60),
], ids=["torch", "numpy", "python"])
def test_what_does_not_fit_is_told_with_the_remedy(allocate):
    with pytest.raises(DtmdError, match="halve the batch"), enough_memory(lambda: "halve the batch"):
        allocate()


def test_a_gpu_that_is_full():
    with pytest.raises(DtmdError, match="halve it .CUDA out of memory"), enough_memory(lambda: "halve it"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), enough_memory(lambda: "halve the batch"):
        raise RuntimeError("shapes do not fit")
