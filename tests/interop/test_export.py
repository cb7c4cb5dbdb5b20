"""Exported folders, opened by diffusers alone: the same noise gives the same picture."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig, NoConditionConfig
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP, Cosine, Linear
from fromnoise.interop.to_diffusers import export
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.config import LatentConfig, PixelConfig

from .conftest import BACKBONES, CAPTIONS, CLASSES, build

SD = VP(beta_start=0.00085, beta_end=0.012, power=2)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2


def exported(pipeline: Pipeline, place: Path) -> Any:
    """The pipeline as diffusers opens it."""
    pipeline.save(place / "model.safetensors", {})
    done = export(place / "model.safetensors", place / "folder")
    trust = {"trust_remote_code": True} if done.layout.name == "fromnoise" else {}
    pipe = DiffusionPipeline.from_pretrained(done.folder, **trust)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def ours(pipeline: Pipeline, prompts: Sequence[str], labels: list[int] | None = None, **options: Any) -> Tensor:
    """What fromnoise draws, (B, C, H, W) in [0, 1]."""
    *_, last = pipeline.stream(prompts, labels=labels, seed=3, precision="float32", **options)
    return pipeline.space.decode(last.x) / 2 + 0.5


def theirs(pipe: Any, count: int, **said: Any) -> Tensor:
    generators = [torch.Generator().manual_seed(3 + i) for i in range(count)]
    return pipe(**said, generator=generators, output_type="pt").images


def same(a: Tensor, b: Tensor) -> None:
    assert ((a > 0.01) & (a < 0.99)).float().mean() > 0.2  # a picture
    assert (a - b).abs().max() < 1e-3


CLASSES_OF = {
    "unet": "UNet2DConditionModel",
    "crossdit": "PixArtTransformer2DModel",
    "sd3": "SD3Transformer2DModel",
    "qwen": "QwenImageTransformer2DModel",
    "dit": "Backbone",  # DiT's class reads no text
    "own": "Backbone",
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_draws_the_same_of_words(backbone: str, tmp_path: Path) -> None:
    pipeline = build(backbone)
    pipe = exported(pipeline, tmp_path)
    part = pipe.unet or pipe.transformer
    assert type(part).__name__ == CLASSES_OF[backbone]
    assert type(pipe.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    long = [*CAPTIONS, "a red circle above a small blue square above a large green star and two rings", "<pad> \u00e9"]
    same(ours(pipeline, long), theirs(pipe, 5, prompt=long))
    assert (theirs(pipe, 2, prompt=CAPTIONS[:2]) - theirs(pipe, 2, prompt=CAPTIONS[1:])).abs().max() > 0.01


@pytest.mark.parametrize("backbone", ["unet", "dit", "sd3"])
@pytest.mark.parametrize("conditioner", [CLASSES, NoConditionConfig(width=16)])
def test_classes_and_nothing(backbone: str, conditioner: Any, tmp_path: Path) -> None:
    pipeline = build(backbone, conditioner)
    pipe = exported(pipeline, tmp_path)
    if conditioner is CLASSES:
        same(ours(pipeline, ["", ""], [3, 0]), theirs(pipe, 2, class_labels=[3, 0]))
        same(ours(pipeline, ["2", "1"]), theirs(pipe, 2, prompt=["2", "1"]))
        with pytest.raises(ValueError, match="4 is no class of this model; allowed: 0 to 3"):
            pipe(class_labels=[4])
    else:
        same(ours(pipeline, ["", ""]), theirs(pipe, 2, prompt=["", ""]))


@pytest.mark.parametrize(
    ("path", "target", "sampling"),
    [
        (SD, "eps", Sampling(sampler="ddim", steps=7, guidance=3.0)),
        (VP(), "v", Sampling(sampler="dpmpp_2m", steps=6, guidance=1.0)),
        (Cosine(), "x0", Sampling(sampler="heun", steps=3, guidance=2.0, interval=(0.2, 0.7))),
        (Linear(), "eps", Sampling(sampler="euler", steps=5, guidance=2.0)),
        (Linear(), "x0", Sampling(sampler="ddim", steps=5, guidance=2.0, shift=3.0, eta=1.0)),
        (Linear(), "flow", Sampling(sampler="euler", steps=28, guidance=2.0, shift=1.5, interval=(0.0, 0.9))),
        (SD, "flow", Sampling(sampler="sde", steps=4, guidance=0.0)),
        (Linear(), "v", Sampling(sampler="rk4", steps=3, guidance=2.0)),
    ],
)
def test_every_path_target_and_sampler(
    path: Any, target: str, sampling: Sampling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = PixelConfig(shift=0.4)
    pipeline = build("own", path=path, objective=Objective(target=target), sampling=sampling, space=space)
    pipe = exported(pipeline, tmp_path)
    drawn = theirs(pipe, 3, prompt=CAPTIONS)
    assert (ours(pipeline, CAPTIONS) - drawn).abs().max() < 1e-3
    # A network of chance weights that is asked for eps draws black and white: what was clipped is compared, too.
    monkeypatch.setattr(sys.modules[type(pipe).__module__], "show", lambda pipe, z, shift: z)
    *_, last = pipeline.stream(CAPTIONS, seed=3, precision="float32")
    unclipped = theirs(pipe, 3, prompt=CAPTIONS) * 2 - 1
    assert last.x.std() > 0.1
    assert (last.x - unclipped).abs().max() < 1e-4 * last.x.abs().max().clamp(min=1)


def test_other_steps_guidance_size_and_latents_than_the_run_had(tmp_path: Path) -> None:
    pipeline = build("own")
    pipe = exported(pipeline, tmp_path)
    mine = ours(pipeline, CAPTIONS[:1], steps=3, guidance=1.0, size=(4, 12))
    told = {"num_inference_steps": 3, "guidance_scale": 1.0, "height": 4, "width": 12}
    same(mine, theirs(pipe, 1, prompt=CAPTIONS[:1], **told))
    noise = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(3))[None]
    same(mine, pipe(CAPTIONS[0], latents=noise, output_type="pt", **told).images)
    (picture,) = pipe(CAPTIONS[0]).images
    assert picture.size == (8, 8)


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_latents(kind: str, vae: Path, tmp_path: Path) -> None:
    folder = vae
    if kind == "tiny":
        from diffusers import AutoencoderTiny

        folder, narrow = tmp_path / "tiny", (8, 8)
        blocks: Any = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
        tiny: Any = AutoencoderTiny(encoder_block_out_channels=narrow, decoder_block_out_channels=narrow, **blocks)
        torch.nn.init.constant_(tiny.decoder.layers[-1].bias, 0.5)
        tiny.save_pretrained(folder)
    space = LatentConfig(path=folder, shift=(0.1, -0.2, 0.3, 0.0), scale=(0.5, 0.6, 0.7, 0.8))
    pipeline = build("own", space=space, size=16)
    pipe = exported(pipeline, tmp_path)
    assert type(pipe.vae).__name__ == {"kl": "AutoencoderKL", "tiny": "AutoencoderTiny"}[kind]
    same(ours(pipeline, CAPTIONS), theirs(pipe, 3, prompt=CAPTIONS))


@pytest.mark.parametrize("backbone", ["crossdit", "qwen"])
def test_frozen_encoders(backbone: str, folders: dict[str, Path], save_clip: Any, tmp_path: Path) -> None:
    encoders = (
        EncoderConfig(path=str(save_clip(tmp_path)), length=8, layer="penultimate"),
        EncoderConfig(path=str(folders["t5"]), length=6),
        EncoderConfig(path=str(folders["gpt2"]), length=5, padding="read"),
    )
    pipeline = build(backbone, FrozenTextConfig(encoders=encoders, width=16))
    pipe = exported(pipeline, tmp_path)
    names = [type(pipe.components[name]).__name__ for name in ("text_encoder", "text_encoder_2", "text_encoder_3")]
    assert names == ["CLIPTextModel", "T5EncoderModel", "GPT2Model"]
    said = [*CAPTIONS, ""]
    same(ours(pipeline, said), theirs(pipe, 4, prompt=said))


def frozen_clip(folder: Path, length: int = 10, padding: Any = "read") -> FrozenTextConfig:
    return FrozenTextConfig(encoders=(EncoderConfig(path=str(folder), length=length, padding=padding),), width=16)


@pytest.mark.parametrize("target", ["eps", "v"])
def test_a_frozen_clip_in_latents_opens_in_stable_diffusions_pipeline(
    target: str, vae: Path, save_clip: Callable[[Path], Path], tmp_path: Path
) -> None:
    space = LatentConfig(path=vae, shift=(0.1, -0.2, 0.3, 0.0), scale=(0.5, 0.6, 0.7, 0.8))
    pipeline = build(
        "unet",
        frozen_clip(save_clip(tmp_path)),
        path=SD,
        objective=Objective(target=target),
        space=space,
        size=16,
        sampling=Sampling(sampler="ddim", steps=10, guidance=3.0),
    )
    pipe = exported(pipeline, tmp_path)
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    drawn = theirs(pipe, 3, prompt=CAPTIONS, num_inference_steps=10, guidance_scale=3.0)
    same(ours(pipeline, CAPTIONS), drawn)


@pytest.mark.parametrize(
    ("sampler", "target", "names", "asked"),
    [("ddim", "eps", (), ["3", "0"]), ("dpmpp_2m", "v", ("cat", "dog", "fox", "cow"), ["cow", "cat"])],
)
def test_classes_in_latents_open_in_dits_pipeline(
    sampler: str, target: str, names: tuple[str, ...], asked: list[str], vae: Path, tmp_path: Path
) -> None:
    space = LatentConfig(path=vae, shift=(0.1, -0.2, 0.3, 0.0), scale=(0.5, 0.6, 0.7, 0.8))
    sampling = Sampling(sampler=sampler, steps=10, guidance=3.0)
    pipeline = build(
        "dit",
        CLASSES.model_copy(update={"names": names}),
        path=VP(),
        objective=Objective(target=target),
        space=space,
        size=16,
        sampling=sampling,
    )
    pipe = exported(pipeline, tmp_path)
    assert type(pipe).__name__ == "DiTPipeline"
    assert pipe.get_label_ids(asked) == [3, 0]
    drawn = theirs(pipe, 2, class_labels=[3, 0], num_inference_steps=10, guidance_scale=3.0)
    same(ours(pipeline, ["", ""], [3, 0]), drawn.clamp(0, 1))
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        said = pipe.vae.encode(images).latent_dist
    mean, std = pipeline.space.encode(images).chunk(2, 1)
    shift, scale = (torch.tensor(numbers)[:, None, None] for numbers in (space.shift, space.scale))
    torch.testing.assert_close(said.mean, (mean - shift) * scale, atol=1e-5, rtol=0)
    torch.testing.assert_close(said.std, std * scale, atol=1e-5, rtol=0)


def test_why_a_stock_pipeline_is_not_taken_is_told(vae: Path, save_clip: Any, tmp_path: Path) -> None:
    space = LatentConfig(path=vae, shift=(0.0,), scale=(1.0,))
    pipeline = build(
        "unet",
        frozen_clip(save_clip(tmp_path), padding="masked"),
        path=SD,
        objective=Objective(target="eps"),
        space=space,
        size=16,
        sampling=Sampling(sampler="ddim", steps=15, guidance=3.0, interval=(0.1, 0.8)),
    )
    pipeline.save(tmp_path / "model.safetensors", {})
    done = export(tmp_path / "model.safetensors", tmp_path / "folder")
    assert done.layout.name == "fromnoise"
    told = "; ".join(done.layout.why)
    for why in ("masks no padding (padding=read,length=10", "15 steps do not divide 1000", "guides at all times"):
        assert why in told
    assert "15 steps do not divide 1000" in (done.folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("backbone", ["unet", "own", "sd3"])
def test_half_as_many_bits_draw_nearly_the_same(backbone: str, tmp_path: Path) -> None:
    pipeline = build(backbone)
    pipeline.save(tmp_path / "model.safetensors", {})
    folder = export(tmp_path / "model.safetensors", tmp_path / "folder").folder
    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, dtype=torch.bfloat16)
    drawn = theirs(pipe, 3, prompt=CAPTIONS)
    assert drawn.dtype == torch.float32
    assert 1e-5 < (ours(pipeline, CAPTIONS) - drawn).abs().mean() < 0.05


OWN = """
from typing import Literal

import torch
from torch import Tensor, nn

from fromnoise.core.types import Cond
from fromnoise.diffusion.path import Coefs, Path
from fromnoise.models.config import BackboneConfig


class Bent(Path):
    \"\"\"The linear path over its own length.\"\"\"

    type: Literal["bent"] = "bent"
    power: float = 2.0

    def length(self, t):
        return ((1 - t) ** self.power + t**self.power) ** (1 / self.power)

    def __call__(self, t):
        n = self.length(t)
        return Coefs((1 - t) / n, t / n, -t / n**3, (1 - t) / n**3)


class Mixer(nn.Module):
    def __init__(self, config, channels, cond_width):
        super().__init__()
        self.inner = nn.Conv2d(channels, config.width, 3, padding=1)
        self.said = nn.Linear(cond_width + 1, config.width)
        self.outer = nn.Conv2d(config.width, channels, 3, padding=1)

    def blocks(self):
        return []

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        said = self.said(torch.cat((cond.vector, t[:, None]), 1))
        return self.outer(torch.sin(self.inner(x) + said[..., None, None]))


class MixerConfig(BackboneConfig):
    \"\"\"Two convolutions.\"\"\"

    type: Literal["mixer"] = "mixer"
    width: int = 8

    def build(self, channels: int, cond_width: int) -> nn.Module:
        return Mixer(self, channels, cond_width)

    @property
    def multiple(self) -> int:
        return 1


def edm(coefs):
    n = (coefs.sigma**2 + coefs.alpha**2 / 4).sqrt()
    return 2 * coefs.sigma / n, -coefs.alpha / 2 / n
"""


def test_path_target_and_backbone_of_ones_own_are_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fromnoise.diffusion.path import PATHS
    from fromnoise.diffusion.target import TARGETS
    from fromnoise.models.config import BACKBONES as KINDS

    (tmp_path / "bent_paths.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import bent_paths  # type: ignore[import-not-found]

    PATHS.append(bent_paths.Bent)
    KINDS.append(bent_paths.MixerConfig)
    monkeypatch.setitem(TARGETS, "edm", bent_paths.edm)
    monkeypatch.setitem(TARGETS, "nameless", lambda coefs: bent_paths.edm(coefs))
    try:
        sampling = Sampling(sampler="euler", steps=4, guidance=2.0)
        objective = Objective(target="edm")
        pipeline = build(bent_paths.MixerConfig(), path=bent_paths.Bent(), objective=objective, sampling=sampling)
        same(ours(pipeline, CAPTIONS), theirs(exported(pipeline, tmp_path), 3, prompt=CAPTIONS))
        assert "bent_paths" not in "".join(file.read_text() for file in (tmp_path / "folder").glob("*.py"))
        build("own", objective=Objective(target="nameless")).save(tmp_path / "nameless.safetensors", {})
        with pytest.raises(ValueError, match=r"<lambda> of .* has no name in its module; write it as a function there"):
            export(tmp_path / "nameless.safetensors", tmp_path / "other")
    finally:
        PATHS.remove(bent_paths.Bent)
        KINDS.remove(bent_paths.MixerConfig)


def test_two_folders_open_together_draw_each_its_own(tmp_path: Path) -> None:
    pipelines = [build("own", path=path, objective=Objective(target="x0")) for path in (Linear(), Cosine())]
    pipes = []
    for i, pipeline in enumerate(pipelines):
        (tmp_path / str(i)).mkdir()
        pipes.append(exported(pipeline, tmp_path / str(i)))
    for pipeline, pipe in zip(pipelines, pipes, strict=True):
        same(ours(pipeline, CAPTIONS), theirs(pipe, 3, prompt=CAPTIONS))


def test_the_code_of_a_folder_needs_torch_and_diffusers_alone(tmp_path: Path) -> None:
    pipeline = build("own", path=VP())
    exported(pipeline, tmp_path)
    files = sorted((tmp_path / "folder").rglob("*.py"))
    assert [file.parent.name for file in files] == ["conditioner", "folder", "scheduler", "transformer"]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names | {"torch", "diffusers"}, file
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        DiffusionPipeline.from_pretrained(tmp_path / "folder")


def test_nothing_but_safetensors_holds_weights(tmp_path: Path) -> None:
    exported(build("unet"), tmp_path)
    suffixes = {file.suffix for file in (tmp_path / "folder").rglob("*") if file.is_file()}
    assert suffixes == {".json", ".md", ".py", ".safetensors"}
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text(encoding="utf-8"))
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]


def test_a_folder_in_use_and_a_run_that_is_none_are_refused(tmp_path: Path) -> None:
    build("own").save(tmp_path / "model.safetensors", {})
    with pytest.raises(ValueError, match=r"is not empty; allowed: a new or an empty directory"):
        export(tmp_path / "model.safetensors", tmp_path)
    with pytest.raises(ValueError, match=r"is a file; allowed"):
        export(tmp_path / "model.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="nothing at"):
        export(tmp_path / "none", tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


def test_an_encoder_that_transformers_does_not_open_by_name_is_refused(folders: Any, tmp_path: Path) -> None:
    conditioner = FrozenTextConfig(encoders=(EncoderConfig(path=str(folders["bart"]), length=6),), width=16)
    build("crossdit", conditioner).save(tmp_path / "model.safetensors", {})
    with pytest.raises(ValueError, match=r"cannot export the text encoder .*BartEncoder"):
        export(tmp_path / "model.safetensors", tmp_path / "folder")
    assert not (tmp_path / "folder").exists() and not list(tmp_path.glob(".folder*"))
