"""Objectives of a whole answer's probability: functions of one summed log-probability per segment.

A segment is a sequence, a proof or solution step, or a token. The functions take `(S,)` log-probabilities and return
`(S,)` losses; keyword-only arguments are hyper-parameters, as in `token.py`.
"""

from collections.abc import Callable

import torch

from trl_math.losses.coverage import coverage_nll
from trl_math.losses.token import cap


SEQUENCE_OBJECTIVES: dict[str, Callable[..., torch.Tensor]] = {
    "coverage": coverage_nll,
    "gate": cap,  # the hard gate: full cross-entropy until the answer's probability reaches `max_probability`
}


def cross_entropy_weight(loss: Callable[[torch.Tensor], torch.Tensor], logps: torch.Tensor) -> torch.Tensor:
    """Return `-d loss / d logps`, the factor that an element-wise loss puts on the cross-entropy gradient.

    For coverage this is F(N, p). Read off by autograd on a detached copy, so a new objective needs one function only.
    """
    with torch.enable_grad():
        leaf = logps.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    return -slope
