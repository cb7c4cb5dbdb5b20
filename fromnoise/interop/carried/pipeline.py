"""The pipeline that opens an exported folder, where no pipeline of diffusers draws as fromnoise does.

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, Tensor

from fromnoise.core.types import Cond
from fromnoise.diffusion.path import Linear as Way  # what these mean is given when a folder is written
from fromnoise.diffusion.predict import guided
from fromnoise.diffusion.target import flow as target
from fromnoise.diffusion.target import largest_start
from fromnoise.interop.carried.glue import ask_backbone as ask
from fromnoise.interop.carried.glue import read_text as read
from fromnoise.interop.carried.glue import show_pixels as show
from fromnoise.interop.carried.glue import steps_of_sampler as steps_of

WAY: dict[str, Any] = {}  # settings of the path
MOVED: dict[str, Any] = {}  # what latents, or pixels, were moved and scaled by


class FromnoisePipeline(DiffusionPipeline):
    """Draws as the run that this folder was exported from."""

    _optional_components = [  # noqa: RUF012, as diffusers has it
        *("unet", "transformer", "vae"),
        *("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", "tokenizer_3", "text_encoder_3"),
    ]

    def __init__(
        self,
        conditioner: Any,
        scheduler: Any,
        unet: Any = None,
        transformer: Any = None,
        vae: Any = None,
        tokenizer: Any = None,
        text_encoder: Any = None,
        tokenizer_2: Any = None,
        text_encoder_2: Any = None,
        tokenizer_3: Any = None,
        text_encoder_3: Any = None,
        channels: int = 3,
        size: int = 32,
        factor: int = 1,
        steps: int = 28,
        guidance: float = 4.0,
        guidance_from: float = 0.0,
        guidance_to: float = 1.0,
    ):
        super().__init__()
        self.register_modules(
            conditioner=conditioner,
            scheduler=scheduler,
            unet=unet,
            transformer=transformer,
            vae=vae,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            tokenizer_2=tokenizer_2,
            text_encoder_2=text_encoder_2,
            tokenizer_3=tokenizer_3,
            text_encoder_3=text_encoder_3,
        )
        self.register_to_config(
            channels=channels,
            size=size,
            factor=factor,
            steps=steps,
            guidance=guidance,
            guidance_from=guidance_from,
            guidance_to=guidance_to,
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        class_labels: Sequence[int] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        generator: Generator | list[Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """One picture of each prompt, or of each of `class_labels`; what is left out is as the run had it.

        generator: one for all noise, or a list of one for each picture: generators of seed, seed + 1, ... draw what
        `fromnoise sample --seed` draws. latents: the unit noise to start from, (B, C, H, W). output_type: pil, np
        (B, H, W, C) or pt (B, C, H, W), in [0, 1].
        """
        told: Any = self.config
        prompts = [prompt] if isinstance(prompt, str) else list(prompt or [""] * len(class_labels or [0]))
        count = num_inference_steps or told.steps
        scale = told.guidance if guidance_scale is None else guidance_scale
        path, device = Way(**WAY), self._execution_device
        start = largest_start(path, target)
        shape = (told.channels, (height or told.size) // told.factor, (width or told.size) // told.factor)

        def cast() -> torch.autocast:  # the sample itself is always float32
            dtype = self.conditioner.dtype
            return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

        def draw() -> Tensor:
            return randn_tensor((len(prompts), *shape), generator, device, torch.float32)  # (B, C, H, W)

        def network(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
            with cast():
                return ask(self, x, t, cond).float()  # (B, C, H, W)

        with cast():
            said, nothing = read(self, prompts, class_labels)
        interval = (told.guidance_from, told.guidance_to)
        predict = guided(network, said, nothing, scale, interval, path=path, target=target)
        x = noise = draw() if latents is None else latents.to(device, torch.float32)
        progress: Any = self.progress_bar
        with progress(total=count) as bar:
            for x in steps_of(self.scheduler, predict, noise, count, start, path, draw):  # noqa: B007
                bar.update()
        with cast():
            images: Any = show(self, x, **MOVED) / 2 + 0.5  # (B, C, H, W)
        if output_type != "pt":
            images = images.cpu().permute(0, 2, 3, 1).numpy()  # (B, H, W, C)
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)
