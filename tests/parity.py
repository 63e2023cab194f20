"""Two computations of one thing, compared where processors agree: in float64, to nine digits."""

from functools import partial

import pytest
import torch

agree = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
in_float64, in_float32 = (pytest.mark.floats(name) for name in ("float64", "float32"))
