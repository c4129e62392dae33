"""Preference objectives: element-wise functions of how far the model has moved apart the two answers of a pair.

    chosen_ratio = log p(chosen) - log p_ref(chosen)        rejected_ratio alike
    delta        = chosen_ratio - rejected_ratio

`delta`, `beta` and `margin` are (B,): one of each for a pair, so that beta and margin may follow its difficulty. A
loss asks for `beta * delta` above `margin` (an offset in units of reward, 0 in plain DPO). Keyword-only arguments are
hyper-parameters. The names are those of TRL's `loss_type`; at margin 0 so are the values. Whether `delta` is made of
sums over tokens or of means is the caller's business.

    sigmoid    -log s(z), z = beta delta - margin       DPO (https://huggingface.co/papers/2305.18290); with
               label_smoothing conservative DPO; a margin is ODPO's offset (https://huggingface.co/papers/2402.10571)
    robust     unbiased under labels that are flipped at a known rate (https://huggingface.co/papers/2403.00409)
    hinge      max(0, 1 - z)                            SLiC (https://huggingface.co/papers/2305.10425)
    ipo        (delta - (1/2 + margin) / beta)^2        IPO (https://huggingface.co/papers/2310.12036)
    exo_pair   KL of softmax(0, -z) from smoothed labels     EXO (https://huggingface.co/papers/2402.00856)
    discopop   a blend of logistic and exponential loss DiscoPOP (https://huggingface.co/papers/2406.08414)
"""

import math
from collections.abc import Callable

import torch
from torch.nn.functional import logsigmoid, relu


def sigmoid(
    delta: torch.Tensor, beta: torch.Tensor, margin: torch.Tensor, *, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return `-(1 - e) log s(z) - e log s(-z)`: DPO, with `label_smoothing` e conservative DPO."""
    z = beta * delta - margin
    if label_smoothing == 0:
        return -logsigmoid(z)
    return -(1 - label_smoothing) * logsigmoid(z) - label_smoothing * logsigmoid(-z)


def robust(
    delta: torch.Tensor, beta: torch.Tensor, margin: torch.Tensor, *, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return the loss whose mean over labels flipped with probability e (below one half) is DPO's on right labels."""
    z = beta * delta - margin
    return (-(1 - label_smoothing) * logsigmoid(z) + label_smoothing * logsigmoid(-z)) / (1 - 2 * label_smoothing)


def hinge(delta: torch.Tensor, beta: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
    """Return `max(0, 1 - z)`."""
    return relu(1 - (beta * delta - margin))


def ipo(delta: torch.Tensor, beta: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
    """Return the squared distance of `delta` from its target; beta is the paper's tau. `delta` is per token."""
    return (delta - (0.5 + margin) / beta) ** 2


def exo_pair(
    delta: torch.Tensor, beta: torch.Tensor, margin: torch.Tensor, *, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return the divergence of the model's preference `s(z)` from `1 - e`; e must be above 0."""
    z = beta * delta - margin
    keep = torch.sigmoid(z) * (logsigmoid(z) - math.log1p(-label_smoothing))
    return keep + torch.sigmoid(-z) * (logsigmoid(-z) - math.log(label_smoothing))


def discopop(
    delta: torch.Tensor, beta: torch.Tensor, margin: torch.Tensor, *, discopop_tau: float = 0.05
) -> torch.Tensor:
    """Return logistic and exponential loss, blended by where z lies."""
    z = beta * delta - margin
    share = torch.sigmoid(z / discopop_tau)
    return -logsigmoid(z) * (1 - share) + torch.exp(-z) * share


def displacement(chosen_ratio: torch.Tensor) -> torch.Tensor:
    """Return how far the chosen answer has fallen below the reference, `max(0, -chosen_ratio)`.

    DPO-Positive takes `penalty` times this from `delta`: -log s(beta (delta - penalty max(0, log p_ref/p (chosen))))
    (https://huggingface.co/papers/2402.13228), so that pushing the rejected answer down no longer pays where it takes
    the chosen one along.
    """
    return relu(-chosen_ratio)


PREFERENCE_OBJECTIVES: dict[str, Callable[..., torch.Tensor]] = {
    "sigmoid": sigmoid,
    "robust": robust,
    "hinge": hinge,
    "ipo": ipo,
    "exo_pair": exo_pair,
    "discopop": discopop,
}
