"""The last tokens alone, read off running means: how an answer is looked at behind step T.

With pooled states, sigma at a step is of the whole answer so far. Whoever writes forty harmless words first is hardly
seen in such a mean, and not at all where it is looked at up to step T only. So behind T the mean is taken over the last
W = T tokens, which at step T are all there are: one goes over into the other, and both are means of as many states.

Of a running mean m over all tokens so far, the mean over the last W is (t m_t - (t - W) m_{t-W}) / W. This holds where
a token's state does not change once it is there: for causal models.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.types import Spec


def keeps_states(spec: Spec) -> bool:
    """Whether a token's state is final once it is written: the sampler writes from left to right (of any other the
    length of the answer belongs to the spec, :func:`demur.traces.spec_of`).
    """
    return "length" not in spec.settings


def recent(means: Float[NDArray[np.float32], "... s d"], width: int) -> Float[NDArray[np.float32], "... s-width d"]:
    """Means over the last ``width`` tokens after steps width + 1 ... s; empty for fewer steps. ``means``: those over
    all tokens so far, after steps 1 ... s.
    """
    steps = np.arange(1, means.shape[-2] + 1, dtype=np.float64)[:, None]
    whole, before = means[..., width:, :].astype(np.float64), means[..., : max(means.shape[-2] - width, 0), :]
    behind = whole * steps[width:] - before.astype(np.float64) * (steps[width:] - width)
    return np.asarray(behind / width, dtype=np.float32)
