"""What turns gradients into weights: AdamW, Muon with stacked matrices, and the schedule of the learning rate."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fromnoise.core.device import has_bfloat16
from fromnoise.training.parallel import SINGLE, Parallel
from fromnoise.training.run import AdamW, Muon

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic whose slope at 0 is steep (Jordan et al. 2024)
NEWTON_SCHULZ_STEPS = 5
BETA1 = 0.9
TOGETHER = 2**22  # numbers of a process in a batched product, which are held several times meanwhile
FEWEST = 4  # matrices in one, whatever their size, as a small one does not fill a GPU
HIDDEN = re.compile(  # what Muon takes, by name: of transformers, of the U-Net, of the small CNN
    r"\b(transformer_blocks|layers)\.\d+\.(?!img_mod|txt_mod|norm1|scale_shift)"
    r"|\b(resnets|attentions|downsamplers|upsamplers)\.\d+\.(?!time_emb_proj)"
    r"|\b(down1|down2|middle|up1|up2|halve1|halve2|double1|double2)\.(?!said)"
)


def schedule(step: int, steps: int, warmup: int, decay: float) -> float:
    """Share of the peak learning rate at `step` (0-based) of `steps`.

    Linear rise over `warmup` steps, then constant, then a cosine to 0 over the last `decay` share of the steps.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    start = steps * (1 - decay)
    if step <= start:
        return rise
    return rise * 0.5 * (1 + math.cos(math.pi * (step - start) / (steps - start)))


def orthogonal(matrices: Tensor) -> Tensor:
    """Roughly U V^T of each matrix U S V^T: (N, rows, columns) with rows <= columns -> the same shape, in bfloat16 if
    its products are not by far the slower ones."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if has_bfloat16(matrices.device) else matrices  # (N, R, C)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # spectral norm at most 1
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT  # (N, R, R)
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # (N, R, R)
        x = torch.baddbmm(x, gram, x, beta=a)  # (N, R, C)
    return x


class Stack(NamedTuple):
    """Matrices of one shape, lying down."""

    names: list[str]  # N of them
    own: list[str]  # n, those that this process updates
    momentum: Tensor  # (n, R, C)


class StackedMuon:
    """Muon (Jordan et al. 2024) with matrices of one shape in batched products; updates of AdamW's size
    (Liu et al. 2025).

    The same numbers as `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`. On two CPU cores with AMX, for the 84
    matrices of a 192-wide, 6-deep MMDiT, the batched products take two thirds of the time of one product per matrix.

    Several processes share the matrices of a stack out among them: each gathers the gradients of its own, whole, keeps
    their momentum, and makes the updates that all then take (as Liu et al. 2025 do).
    """

    def __init__(self, named: dict[str, nn.Parameter], config: Muon, parallel: Parallel = SINGLE):
        self.config, self.parallel, self.named = config, parallel, named
        alike: dict[tuple[int, int], list[str]] = {}
        for name, p in named.items():
            rows, columns = sorted((len(p), math.prod(p.shape[1:])))
            alike.setdefault((rows, columns), []).append(name)
        self.stacks: list[Stack] = []
        for shape, names in alike.items():
            most = parallel.sharers.size * max(FEWEST, TOGETHER // math.prod(shape))
            for i in range(0, len(names), most):
                part = names[i : i + most]
                own = part[slice(*parallel.sharers.share(len(part)))]
                momentum = torch.zeros(len(own), *shape, device=named[part[0]].device)  # (n, R, C)
                self.stacks.append(Stack(part, own, momentum))

    @torch.no_grad()
    def step(self, factor: float, broken: Tensor | None = None) -> None:
        """One update at `factor` of the peak learning rate; of weights none where `broken`, (), is 1."""
        lr, beta = self.config.lr * factor, self.config.momentum
        parallel = self.parallel
        for names, _, momentum in self.stacks:
            held = [self.named[name] for name in names]
            own = parallel.collected([_grad(p) for p in held])  # n of them
            grads = torch.stack([_flat(grad) for grad in own]) if own else torch.empty_like(momentum)  # (n, R, C)
            del own  # of shared out weights, they are copies
            momentum.lerp_(grads, 1 - beta)  # (n, R, C)
            update = orthogonal(grads.lerp_(momentum, beta))  # (n, R, C)
            if broken is not None:
                update.masked_fill_(broken.bool(), 0)
            update = parallel.sharers.rows(update, len(names))  # (N, R, C)
            weights = [_flat(parallel.held(p), standing(p)) for p in held]  # N of (R, C), or of their rows held here
            parts = [
                (part[:, slice(*parallel.rows(p))] if standing(p) else part[slice(*parallel.rows(p))]).to(grads.dtype)
                for part, p in zip(update.unbind(), held, strict=True)
            ]
            if self.config.weight_decay:  # else all weights would be read and written to become what they are
                kept = 1 - lr * self.config.weight_decay
                torch._foreach_mul_(weights, kept if broken is None else torch.where(broken.bool(), 1.0, kept))
            torch._foreach_add_(weights, parts, alpha=-lr * 0.2 * math.sqrt(momentum.shape[-1]))

    def tensors(self) -> dict[str, Tensor]:
        """The momentum of each matrix of this process's, by its name."""
        return {
            f"momentum/{name}": row
            for stack in self.stacks
            for name, row in zip(stack.own, stack.momentum, strict=True)
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `tensors` gave."""
        for name, row in self.tensors().items():
            row.copy_(tensors[name])


def standing(weight: Tensor) -> bool:
    """Whether a matrix, or a convolution as one, (out, in times places), is higher than wide."""
    return len(weight) > math.prod(weight.shape[1:])


def _flat(weight: Tensor, turned: bool | None = None) -> Tensor:
    """A view of a matrix, or of a convolution as one, lying down: at least as wide as high. turned: whether the whole
    is `standing`, where these are some of its rows."""
    matrix = weight.view(len(weight), math.prod(weight.shape[1:]))
    return matrix.mT if (standing(weight) if turned is None else turned) else matrix


def _grad(p: nn.Parameter) -> Tensor:
    assert p.grad is not None, "every parameter gets a gradient"
    return p.grad


def shared(model: nn.Module, config: AdamW | Muon) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The parameters of `model` that Muon takes, and those that AdamW takes, by name."""
    named = dict(model.named_parameters())
    if not isinstance(config, Muon):
        return {}, named
    inside = {name: p for name, p in named.items() if p.ndim >= 2 and HIDDEN.search(name)}
    return inside, {name: p for name, p in named.items() if name not in inside}


class Optimizer:
    """Every parameter of `model` under AdamW, or its blocks' matrices under Muon and the rest under AdamW.

    Muon takes the matrices and convolutions of the backbone's blocks and the text encoder's layers; a convolution is
    a matrix of (out, in times places). Modulation stays with AdamW: it is a third of the matrices' entries, sees one
    row a picture, and its products would cost Muon another half of its time. So does what the time adds in a U-Net.
    """

    def __init__(self, model: nn.Module, config: AdamW | Muon, parallel: Parallel = SINGLE):
        inside, named = shared(model, config)
        self.parallel = parallel
        self.muon = StackedMuon(inside, config, parallel) if isinstance(config, Muon) else None
        self.lr = config.adamw_lr if isinstance(config, Muon) else config.lr
        matrices = [p for p in named.values() if p.ndim >= 2]
        vectors = [p for p in named.values() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.named = named
        self.adamw = torch.optim.AdamW(groups, lr=self.lr, betas=(BETA1, config.beta2), fused=True)

    def step(self, factor: float, broken: Tensor | None = None) -> None:
        """One update at `factor` of the peak learning rates; of weights none where `broken`, (), is 1, which is asked
        on the device."""
        for group in self.adamw.param_groups:
            group["lr"] = self.lr * factor
        self.adamw.found_inf = broken  # pyright: ignore[reportAttributeAccessIssue], as torch.amp.GradScaler tells it
        self.adamw.step()
        if self.muon:
            self.muon.step(factor, broken)

    def tensors(self) -> dict[str, Tensor]:
        """The state that is here, by the names of the parameters."""
        state = self.adamw.state
        own = {f"{key}/{name}": value for name, p in self.named.items() for key, value in state[p].items()}
        return own | (self.muon.tensors() if self.muon else {})

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `tensors` gave, of all processes and whole."""
        for name, p in self.named.items():
            if f"step/{name}" not in tensors:
                continue  # it has had no gradient yet: a discriminator begins late
            moments = {key: self.parallel.like(p, tensors[f"{key}/{name}"]) for key in ("exp_avg", "exp_avg_sq")}
            self.adamw.state[p] = {"step": tensors[f"step/{name}"].to(p.device, copy=True), **moments}
        if self.muon:
            self.muon.load(tensors)
