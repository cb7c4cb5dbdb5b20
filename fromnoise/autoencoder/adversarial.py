"""The adversarial term of VQGAN and latent diffusion (Esser et al. 2021, Rombach et al. 2022): a discriminator of
patches tells pictures from reconstructions, which learn to be told apart no more.

Legend: B batch, C channels of a picture, H and W its rows and columns, D channels of a layer, r and c its rows and
columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

LARGEST = 8  # times the first layer's width: that of the widest
SLOPE = 0.2  # of the leaky ReLU below zero
DELTA = 1e-6  # in equation 7 of Esser et al. 2021
MOST = 1e4  # the adaptive weight is at most this, as in the authors' code
INITIAL_STD = 0.02  # of weights (Isola et al. 2017, section 6.2)
GROUPS = 8


class Discriminator(nn.Module):
    """PatchGAN (Isola et al. 2017, section 6.1.2): convolutions whose every output judges a patch.

    Group norm stands in the place of its batch norm: a picture's judgement does not hang on the others of its batch,
    and there is no state that a forward changes.

    channels: of a picture. width: of the first layer. layers: that halve the side.
    """

    def __init__(self, channels: int, width: int, layers: int):
        super().__init__()
        widths = [width * min(2**i, LARGEST) for i in range(layers + 1)]
        self.first = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 4, stride=2 if i + 1 < layers else 1, padding=1, bias=False)
            for i in range(layers)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, one) for one in widths[1:])
        self.last = nn.Conv2d(widths[-1], 1, 4, padding=1)
        for parameter in self.parameters():
            if parameter.ndim == 4:  # of a convolution
                nn.init.normal_(parameter, std=INITIAL_STD)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, r, c), above 0 for patches that look real."""
        x = F.leaky_relu(self.first(x), SLOPE)  # (B, D, r, c)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.leaky_relu(norm(convolution(x)), SLOPE)  # (B, D, r, c)
        return self.last(x).squeeze(1)  # (B, r, c)


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """The discriminator's loss of each pair of judgements (B, r, c): (B,) (Lim and Ye 2017)."""
    return 0.5 * (F.relu(1 - real) + F.relu(1 + made)).float().mean((1, 2))  # (B,)


def fooled(discriminator: Discriminator, made: Tensor) -> Tensor:
    """The autoencoder's loss of each reconstruction (B, C, H, W): (B,). No gradient reaches the discriminator."""
    held = {name: p.detach() for name, p in discriminator.named_parameters()}
    return -functional_call(discriminator, held, (made,)).float().mean((1, 2))  # (B,)


def adaptive_weight(error: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """By how much to multiply the `adversarial` loss so that the decoder's `last` layer feels it as strongly as the
    `error` (Esser et al. 2021, equation 7). All are scalars but `last`, a parameter."""
    (by_error,) = torch.autograd.grad(error, last, retain_graph=True)
    (by_adversarial,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    return (by_error.norm() / (by_adversarial.norm() + DELTA)).clamp(max=MOST).detach()
