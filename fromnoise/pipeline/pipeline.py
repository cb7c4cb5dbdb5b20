"""What is trained, averaged, saved, and draws: a backbone, a conditioner, a space, a path and an objective.

Legend: B batch, C channels, H height, W width, N steps.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from threading import Lock
from typing import Any, Literal, NamedTuple, get_args

import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn
from torch.func import functional_call

from fromnoise.core.compiler import compiled, is_compiled
from fromnoise.core.config import explain
from fromnoise.core.device import autocast, fast_bfloat16, keep_freed_memory
from fromnoise.core.files import load_metadata, load_tensors, save_tensors
from fromnoise.core.transfer import sent
from fromnoise.core.types import Batch, Cond
from fromnoise.diffusion.predict import Model, guided
from fromnoise.diffusion.sample import WITH_ETA, Step, choose
from fromnoise.diffusion.target import TARGETS, check, largest_start
from fromnoise.diffusion.times import schedule
from fromnoise.pipeline.between import lerp, slerp
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pictures import as_pictures
from fromnoise.pipeline.place import recorded_config

Precision = Literal["float32", "bfloat16"]
LARGEST_SIDE = 4096
CHUNK = 64  # pictures drawn together by a call
exchanging = Lock()
"""Held while a backbone is asked: for as long, its matrices may stand exchanged for bfloat16 ones, in place."""


class Pipeline(nn.Module):
    """A text-to-image model. Make one with `build` (fresh), or `load` (from a file that `save` wrote).

    Threads may draw with one at once: each picture is as if it were drawn alone, and they take turns step by step, as
    two steps at once take no less time. `draw_as` and `compiled` are for all threads; training is for one alone.
    """

    def __init__(self, config: ModelConfig, conditioner: nn.Module, space: nn.Module, hollow: bool = False):
        """hollow: give the backbone's weights shapes alone, to be filled later."""
        super().__init__()
        self.config = config
        self.told: set[str] = set()  # notices about prompts that the user has had
        self.space: Any = space  # one of fromnoise.space; it has no parameters
        if config.size % self.multiple:
            raise ValueError(f"model.size is {config.size}; allowed: multiples of {self.multiple} pixels")
        channels, _, _ = self.latent_shape(config.size, config.size)
        self.conditioner: Any = conditioner  # one of fromnoise.conditioning
        with torch.device("meta") if hollow else nullcontext():
            self.backbone: Any = config.backbone.build(channels, self.conditioner.width)  # one of fromnoise.models

    @classmethod
    def build(cls, config: ModelConfig, captions: Sequence[str], seed: int, hollow: bool = False) -> Pipeline:
        """A fresh pipeline on the CPU: vocabulary from `captions`, weights from `seed`, but for a `hollow` backbone."""
        with torch.random.fork_rng(devices=[]):  # modules draw their weights from torch's default generator
            torch.manual_seed(seed)
            return cls(config, config.conditioner.build(captions), config.space.build(), hollow)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Pipeline:
        """The pipeline that `save` wrote to the file `path`, in evaluation mode.

        Raises:
            ValueError: one line, when the file is missing, cut short, altered, or holds no pipeline of this version;
                of the class VAEFault or EncoderFault when what is wrong is the VAE or a frozen text encoder, which the
                file does not hold.
        """
        tensors, metadata = load_tensors(path)
        pipeline = cls._restored(path, metadata, hollow=False)
        try:
            pipeline.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit this version: {' '.join(str(error).split())}") from None
        return pipeline.to(device).eval()

    @classmethod
    def load_hollow(cls, path: str | os.PathLike[str]) -> Pipeline:
        """As `load` on the CPU, with none of the weights read; errors alike, but for what only they would show."""
        return cls._restored(path, load_metadata(path), hollow=True).eval()

    @classmethod
    def _restored(cls, path: str | os.PathLike[str], metadata: dict[str, str], hollow: bool) -> Pipeline:
        config = recorded_config(path, metadata)
        conditioner = config.conditioner.restore(json.loads(metadata["state"]))
        space = config.space.restore(json.loads(metadata.get("space", "{}")))  # files older than latents have none
        return cls(config, conditioner, space, hollow)

    def save(self, path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
        """Write weights, config, and text's and space's state to the file `path` (safetensors, atomic), beside
        `metadata` of yours. Of a VAE and of frozen text encoders only the hash is written."""
        states = {"state": json.dumps(self.conditioner.state), "space": json.dumps(self.space.state)}
        save_tensors(path, self.state_dict(), metadata | {"config": self.config.model_dump_json()} | states)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def multiple(self) -> int:
        """Sides of a picture are multiples of this many pixels."""
        return self.config.backbone.multiple * self.space.factor

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape of what the backbone sees of one picture of `height` x `width` pixels."""
        return self.space.latent_shape(self.config.channels, height, width)

    def blocks(self) -> list[nn.Module]:
        """What is compiled, and shared out among processes, one by one."""
        return self.backbone.blocks()

    def compiled(self, wanted: bool = True) -> AbstractContextManager[None]:
        """Inside, the backbone's blocks run compiled, if that is `wanted`; see `core.compiler.compiled`."""
        return compiled(self.blocks()) if wanted else nullcontext()

    def draw_as(self, sampling: Sampling) -> None:
        """Draw by `sampling` from now on, where nothing else is asked for; ValueError for an eta that is not read."""
        choose(sampling.sampler, sampling.eta)
        self.config = self.config.model_copy(update={"sampling": sampling})

    def latents(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """What the backbone learns of a batch, (B, C, H, W) on the CPU: drawn anew each time where a VAE is unsure."""
        stored = batch.images if batch.encoded else self.space.encode(batch.images)  # (B, 2 C, H, W) or (B, C, H, W)
        return self.space.latent(stored, generator)  # (B, C, H, W)

    def loss(self, z: Tensor, features: dict[str, Tensor], t: Tensor, eps: Tensor, keep: Tensor) -> Tensor:
        """The loss of each sample, (B,).

        z: (B, C, H, W) latents. features: of `conditioner.encode`. t: (B,) times. eps: like z.
        keep: (B,) bool, False where the prompt is replaced by nothing.
        """
        cond = self.conditioner(features).where(keep, self.conditioner.null(len(z)))
        return self.config.objective.loss(self.backbone, z, cond, t, eps, self.config.path)

    def __call__(
        self,
        prompts: str | Sequence[str],
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        size: int | tuple[int, int] | None = None,
        *,
        sampler: str | None = None,
        interval: tuple[float, float] | None = None,
        shift: float | None = None,
        eta: float | None = None,
        labels: Sequence[int] | None = None,
        precision: Precision | Literal["auto"] = "auto",
    ) -> list[Image.Image]:
        """Draw one picture of each prompt, some dozens at a time. Arguments and errors as in `stream`."""
        request = self._request(prompts, labels, [seed], size, precision)
        sampling = self.sampling(sampler, steps, guidance, interval, shift, eta)
        pictures = []
        for part in request.parts(CHUNK):
            last = deque(self._draw(part, sampling), maxlen=1).pop()
            pictures += self.pictures(last.x)
        return pictures

    def stream(
        self,
        prompts: str | Sequence[str],
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        size: int | tuple[int, int] | None = None,
        *,
        sampler: str | None = None,
        interval: tuple[float, float] | None = None,
        shift: float | None = None,
        eta: float | None = None,
        labels: Sequence[int] | None = None,
        precision: Precision | Literal["auto"] = "auto",
    ) -> Iterator[Step]:
        """Draw one picture of each prompt, yielding x and the expected x0 (B, C, H, W) after every step.

        What is None is as the model's config has it. Each picture has noise of its own, picture i from `seed` + i: it
        does not depend on the others, but for rounding.

        steps: 1 to 1000, from noise to picture. guidance: 0 unconditional, 1 conditional, up to 100.
        size: side in pixels, or (height, width); multiples of `multiple`.
        sampler, interval, shift, eta: as in `Sampling`. labels: class of each picture, for a model of classes;
        left out, each prompt is the number of one.
        precision: float32 or bfloat16 for matrix products; auto is bfloat16 where that is faster. What is drawn is the
        same but for rounding; the sample itself, and the time, are always float32.

        Raises:
            ValueError: one line, for whatever is out of range, before anything is drawn.
        """
        request = self._request(prompts, labels, [seed], size, precision)
        return self._draw(request, self.sampling(sampler, steps, guidance, interval, shift, eta))

    def between(
        self,
        prompts: tuple[str, str],
        seeds: tuple[int, int],
        count: int,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | tuple[int, int] | None = None,
        *,
        sampler: str | None = None,
        labels: tuple[int, int] | None = None,
        precision: Precision | Literal["auto"] = "auto",
    ) -> Iterator[Step]:
        """As `stream`, for `count` pictures (B) on the way from one prompt and seed to another, both ends included.

        The noise goes along the great circle between both (see `slerp`), the condition in a straight line (see
        `lerp`); the ends are what `stream` draws of them.

        Raises:
            ValueError: as `stream`, and for a count that is not 2 to 64.
        """
        if not 2 <= count <= CHUNK:
            raise ValueError(f"count is {count}; allowed: 2 to {CHUNK} pictures, both ends among them")
        if (len(prompts), len(seeds)) != (2, 2):
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds are given; allowed: 2 of each, both ends")
        request = self._request(prompts, labels, seeds, size, precision)
        return self._draw(request, self.sampling(sampler, steps, guidance), torch.linspace(0, 1, count))

    def pictures(self, z: Tensor) -> list[Image.Image]:
        """Latents (B, C, H, W) as 8-bit pictures."""
        return as_pictures(self.space.decode(z))

    def sampling(
        self,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        interval: tuple[float, float] | None = None,
        shift: float | None = None,
        eta: float | None = None,
    ) -> Sampling:
        """The config's way of sampling with what is not None in its place; errors as in `stream`."""
        asked = {"sampler": sampler, "steps": steps, "guidance": guidance}
        asked |= {"interval": interval, "shift": shift, "eta": eta}
        given = {key: value for key, value in asked.items() if value is not None}
        if sampler is not None and sampler not in WITH_ETA:
            given.setdefault("eta", 0.0)  # the config's is for its own sampler
        try:
            sampling = Sampling.model_validate({**dict(self.config.sampling), **given})
        except ValidationError as error:
            raise ValueError(explain(error)) from None
        choose(sampling.sampler, sampling.eta)
        return sampling

    def _request(
        self,
        prompts: str | Sequence[str],
        labels: Sequence[int] | None,
        seeds: Sequence[int],
        size: int | tuple[int, int] | None,
        precision: Precision | Literal["auto"],
    ) -> Request:
        """What is asked for, checked. seeds: of each picture, or of the first one alone."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        check_prompts(prompts)
        classes: list[int] = self.conditioner.labels(prompts) if labels is None else list(labels)
        if len(classes) != len(prompts):
            raise ValueError(f"{len(classes)} labels are given for {len(prompts)} prompts; allowed: one each")
        asked = list(dict.fromkeys(classes))
        self.conditioner.encode([""] * len(asked), torch.tensor(asked))  # refuses a label, of the last picture, too
        all_seeds = list(seeds) if len(seeds) == len(prompts) else [seeds[0] + i for i in range(len(prompts))]
        for seed in all_seeds:
            if not (isinstance(seed, Integral) and 0 <= seed < 2**63):
                raise ValueError(f"seed is {seed}; allowed: 0 to 2^63 - 1")
        if precision == "auto":
            precision = "bfloat16" if fast_bfloat16(self.device) else "float32"
        if precision not in get_args(Precision):
            raise ValueError(f"precision is {precision!r}; allowed: auto, {', '.join(get_args(Precision))}")
        notice = self.conditioner.notice(prompts)
        if notice and notice not in self.told:
            self.told.add(notice)
            print(f"note: {notice}", file=sys.stderr, flush=True)
        return Request(prompts, classes, [int(seed) for seed in all_seeds], self._sides(size), precision)

    def _sides(self, size: int | tuple[int, int] | None) -> tuple[int, int]:
        """Height and width asked for."""
        asked, unit = self.config.size if size is None else size, self.multiple
        sides = tuple(asked) if isinstance(asked, Sequence) else (asked, asked)
        fit = [isinstance(side, Integral) and unit <= side <= LARGEST_SIDE and side % unit == 0 for side in sides]
        if fit != [True, True]:
            allowed = f"multiples of {unit} from {unit} to {LARGEST_SIDE} pixels"
            raise ValueError(f"size is {'x'.join(map(str, sides))} (height x width); allowed: {allowed}")
        height, width = map(int, sides)
        return height, width

    def network(self, dtype: torch.dtype | None) -> Model:
        """The backbone as it draws: matrix products in `dtype` (None: as it is), its answer in float32.

        Matrices of linear layers are cast once here; autocast would cast them anew at every step, to the same numbers.
        They are laid out by columns, in which products with them are 8 % faster on a CPU. Where processes share out
        weights, theirs are no plain parameters, and are cast when they are gathered.
        """
        device = self.device
        linear = [(name, m.weight) for name, m in self.backbone.named_modules() if isinstance(m, nn.Linear)]
        plain = {f"{name}.weight": p for name, p in linear if dtype and type(p) is nn.Parameter}
        cast = {name: p.detach().to(dtype).T.contiguous().T for name, p in plain.items()}

        def network(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
            with exchanging, autocast(device, dtype):
                return functional_call(self.backbone, cast, (x, t, cond)).float()  # (B, C, H, W)

        return network

    @torch.no_grad()  # not inference mode: tensors that modules cache could then never be trained with
    def _draw(self, request: Request, sampling: Sampling, weights: Tensor | None = None) -> Iterator[Step]:
        """weights: (B,) from 0 to 1, where the pictures wanted stand between the two that are asked for."""
        path, target, device = self.config.path, TARGETS[self.config.objective.target], self.device
        times = schedule(sampling.steps, sampling.shift, largest_start(path, target))  # (N + 1,)
        check(path, target, float(times[-2]), float(times[0]))
        dtype = torch.bfloat16 if request.precision == "bfloat16" else None
        keep_freed_memory()
        network = self.network(dtype)
        features = self.conditioner.encode(request.prompts, torch.tensor(request.labels))
        with autocast(device, dtype):
            cond = self.conditioner({key: value.to(device) for key, value in features.items()})
            cond = cond if weights is None else lerp(cond, weights.to(device))
            null = self.conditioner.null(len(cond.mask))
        if not is_compiled(self.backbone):  # compiled code would have to be made for every length
            cond, null = cond.trimmed(), null.trimmed()
        predict = guided(network, cond, null, sampling.guidance, sampling.interval, path=path, target=target)
        shape = self.latent_shape(*request.sides)
        generators = [torch.Generator().manual_seed(seed) for seed in request.seeds]

        def draw() -> Tensor:
            noise = torch.stack([torch.randn(shape, generator=g) for g in generators])  # (B, C, H, W)
            noise = noise if weights is None else slerp(noise[0], noise[1], weights)  # (B, C, H, W)
            return sent(noise, device)

        return _without_gradients(choose(sampling.sampler, sampling.eta)(predict, draw(), times, path, draw))


@torch.no_grad()
def _without_gradients(steps: Iterator[Step]) -> Iterator[Step]:
    # The mode holds while a step is computed, not while the caller looks at it.
    yield from steps


def check_prompts(prompts: Sequence[str]) -> None:
    """ValueError, one line, where there is none, or where one is no text, or holds bytes that are no UTF-8."""
    if not prompts:
        raise ValueError("no prompt is given; allowed: one or more")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt is {prompt!r}; allowed: text")
        if re.search("[\ud800-\udfff]", prompt):  # what Python makes of such bytes in a command
            raise ValueError(f"a prompt is {prompt!r}; allowed: text in UTF-8")


class Request(NamedTuple):
    """What is to be drawn, checked."""

    prompts: list[str]
    labels: list[int]
    seeds: list[int]
    sides: tuple[int, int]  # height and width in pixels
    precision: Precision

    def parts(self, most: int) -> Iterator[Request]:
        """The same in parts of at most `most` pictures."""
        for i in range(0, len(self.prompts), most):
            part = slice(i, i + most)
            yield self._replace(prompts=self.prompts[part], labels=self.labels[part], seeds=self.seeds[part])
