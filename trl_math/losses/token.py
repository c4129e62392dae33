"""Token-level objectives: element-wise functions of what one forward pass knows of each target token.

A function's positional arguments name what it reads (`logps`: log-probability of the target at temperature 1;
`entropy`: of the next-token distribution; `tempered_logps`: log-probability at `temperature`), its keyword-only
arguments are its hyper-parameters. It returns one loss per token; masking and reduction belong to `reduce.py`.

Weight on the cross-entropy gradient, and what it does to confidence (`p` = probability of the target token):

    cross_entropy   1
    focal           (1-p)^gamma - gamma p (1-p)^(gamma-1) log p     limits
    cap             1 if p < max_probability else 0                 limits
    tempered        logit gradient softmax(z/T) - onehot            limits (T < 1)
    entropy_bonus   1, plus a pull towards entropy                  limits
    tofu            focal's weight on the tempered loss             limits
    dft             p                                               raises, for contrast
    profit          1 if p > min_probability else 0                 raises, for contrast
"""

import math

import torch


# Closer to p = 1 than this, (1-p)^gamma has no usable float32 gradient for gamma < 1.
NEAR_ONE = -1e-7


def cross_entropy(logps: torch.Tensor) -> torch.Tensor:
    """Return `-log p`."""
    return -logps


def focal_weight(logps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return the factor that the focal loss puts on the cross-entropy gradient, without gradient."""
    logps = logps.detach().clamp(max=NEAR_ONE)
    miss = -torch.expm1(logps)
    return miss**gamma - gamma * torch.exp(logps) * miss ** (gamma - 1) * logps


def focal(logps: torch.Tensor, *, gamma: float = 2.0) -> torch.Tensor:
    """Return `-(1-p)^gamma log p`: Lin et al., "Focal Loss" (https://huggingface.co/papers/1708.02002)."""
    return -((-torch.expm1(logps.clamp(max=NEAR_ONE))) ** gamma) * logps


def cap(logps: torch.Tensor, *, max_probability: float) -> torch.Tensor:
    """Return `-min(log p, log max_probability)`: cross-entropy that stops pushing at a stated confidence.

    On whole sequences this is the hard gate, the step-function limit of coverage: an example counts until `p` reaches
    `max_probability` and not after.
    """
    return -logps.clamp(max=math.log(max_probability))


def tempered(tempered_logps: torch.Tensor, *, temperature: float = 0.7) -> torch.Tensor:
    """Return `-T log softmax(z/T)_y`, whose gradient in the logits is `softmax(z/T) - onehot`.

    That is the gradient of GEM with its linear h, with beta = T: Li et al., "Preserving Diversity in Supervised
    Fine-Tuning" (https://huggingface.co/papers/2408.16673).
    """
    return -temperature * tempered_logps


def entropy_bonus(logps: torch.Tensor, entropy: torch.Tensor, *, weight: float) -> torch.Tensor:
    """Return `-log p - weight * H`: cross-entropy with a confidence penalty (https://huggingface.co/papers/1701.06548)."""
    return -logps - weight * entropy


def tofu(logps: torch.Tensor, tempered_logps: torch.Tensor, *, gamma: float, temperature: float) -> torch.Tensor:
    """Return the tempered loss times the focal weight: TOFU (https://huggingface.co/papers/2605.00195).

    The paper's own definition of its tempered probability was not available to us; `p^(beta)` is read as
    `softmax(z/beta)`, as its prefactor suggests, and the weight uses p at temperature 1.
    """
    return focal_weight(logps, gamma) * tempered(tempered_logps, temperature=temperature)


def dft(logps: torch.Tensor) -> torch.Tensor:
    """Return `-p log p` with p detached: Dynamic Fine-Tuning (https://huggingface.co/papers/2508.05629). Raises
    confidence; TRL's own `loss_type: dft` is the same loss."""
    return -logps.detach().exp() * logps


def profit(logps: torch.Tensor, *, min_probability: float = 0.1) -> torch.Tensor:
    """Return cross-entropy on tokens with `p > min_probability`, else 0: ProFit (https://huggingface.co/papers/2601.09195).
    Raises confidence."""
    return torch.where(logps.detach() > math.log(min_probability), -logps, torch.zeros_like(logps))


TOKEN_OBJECTIVES = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "cap": cap,
    "tempered": tempered,
    "entropy_bonus": entropy_bonus,
    "tofu": tofu,
    "dft": dft,
    "profit": profit,
}
