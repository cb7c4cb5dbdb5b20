"""Folders of diffusers as runs: those that fromnoise wrote, bit by bit, and those of diffusers' own classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig, NoConditionConfig
from fromnoise.core.config import read_yaml
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP
from fromnoise.interop.from_diffusers import bring
from fromnoise.interop.to_diffusers import export
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.load import load
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.config import LatentConfig
from fromnoise.training.run import Run, read_run

from .conftest import BACKBONES, CAPTIONS, CLASSES, TEXT, build

SD = VP(beta_start=0.00085, beta_end=0.012, power=2)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2


def there_and_back(pipeline: Pipeline, place: Path) -> Pipeline:
    pipeline.save(place / "model.safetensors", {})
    export(place / "model.safetensors", place / "folder")
    bring(place / "folder", place / "run")
    return load(place / "run")


def equal(a: Pipeline, b: Pipeline) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def drawn(pipeline: Pipeline, *args: Any, **options: Any) -> Tensor:
    *_, last = pipeline.stream(*args, seed=3, precision="float32", **options)
    return pipeline.space.decode(last.x) / 2 + 0.5


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(3 + i) for i in range(count)]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("conditioner", [TEXT, CLASSES, NoConditionConfig(width=16)], ids=lambda one: one.type)
def test_there_and_back_is_the_same_to_the_bit(backbone: str, conditioner: Any, tmp_path: Path) -> None:
    pipeline = build(backbone, conditioner)
    again = there_and_back(pipeline, tmp_path)
    equal(pipeline, again)
    assert again.config == pipeline.config


@pytest.mark.parametrize("kind", ["stable diffusion", "dit"])
def test_what_was_folded_comes_back_to_the_bit(kind: str, vae: Path, save_clip: Any, tmp_path: Path) -> None:
    encoder = EncoderConfig(path=str(save_clip(tmp_path)), length=10, padding="read")
    path, conditioner = (VP(), CLASSES) if kind == "dit" else (SD, FrozenTextConfig(encoders=(encoder,), width=16))
    pipeline = build(
        "dit" if kind == "dit" else "unet",
        conditioner,
        path=path,
        objective=Objective(target="eps"),
        space=LatentConfig(path=vae, shift=(0.1, -0.2, 0.3, 0.0), scale=(0.5, 0.6, 0.7, 0.8)),
        size=16,
        sampling=Sampling(sampler="ddim", steps=10, guidance=3.0),
    )
    again = there_and_back(pipeline, tmp_path)
    equal(pipeline, again)
    prompts = ["3", "0"] if kind == "dit" else CAPTIONS
    torch.testing.assert_close(drawn(again, prompts), drawn(pipeline, prompts), atol=1e-4, rtol=0)
    weights = next((tmp_path / "folder").glob("[ut]*/diffusion_pytorch_model.safetensors"))
    state = load_file(weights)
    time = [key for key in state if key.endswith("linear_1.weight")]
    save_file(state | {key: state[key] + 1 for key in time}, weights)
    with pytest.raises(ValueError, match="was changed after the export"):
        bring(tmp_path / "folder", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_latents_and_frozen_encoders_come_back_and_need_the_folder_no_more(
    vae: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    encoders = (EncoderConfig(path=str(folders["t5"]), length=6), EncoderConfig(path=str(folders["bert"]), length=5))
    space = LatentConfig(path=vae, shift=(0.1, -0.2, 0.3, 0.0), scale=(0.5, 0.6, 0.7, 0.8))
    pipeline = build("crossdit", FrozenTextConfig(encoders=encoders, width=16), space=space, size=16)
    again = there_and_back(pipeline, tmp_path)
    shutil.rmtree(tmp_path / "folder")
    equal(pipeline, again)
    assert again.space.sha256 == pipeline.space.sha256
    assert again.conditioner.state == pipeline.conditioner.state
    assert torch.equal(drawn(load(tmp_path / "run"), CAPTIONS), drawn(pipeline, CAPTIONS))


def random(model: Any) -> Any:
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.1)
    return model


def test_a_dit_of_diffusers_draws_the_same(vae: Path, tmp_path: Path) -> None:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, patch_size=2,
        sample_size=8, num_embeds_ada_norm=1000, norm_eps=1e-6,
    )  # fmt: skip
    blocks: Any = list(random(transformer).transformer_blocks)
    blocks[1].norm1.emb.load_state_dict(blocks[0].norm1.emb.state_dict())
    scheduler: Any = DDIMScheduler(timestep_spacing="trailing", clip_sample=False, prediction_type="v_prediction")
    DiTPipeline(transformer, AutoencoderKL.from_pretrained(vae), scheduler).save_pretrained(tmp_path / "folder")
    done = bring(tmp_path / "folder", tmp_path / "run")
    assert done.notes == []
    pipe: Any = DiTPipeline.from_pretrained(tmp_path / "folder")
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        [7, 999], guidance_scale=3.0, num_inference_steps=10, generator=generators(2), output_type="pt"
    ).images
    mine = drawn(load(tmp_path / "run"), ["7", "999"], steps=10, guidance=3.0)
    assert mine.std() > 0.05
    assert (mine - theirs).abs().max() < 1e-3


def stable_diffusion(vae: Path, clip: Path, folder: Path, **changes: Any) -> Path:
    import transformers

    unet = UNet2DConditionModel(
        **{
            "sample_size": 8,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
            "cross_attention_dim": 12,
        }
        | changes
    )
    scheduler: Any = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing", steps_offset=1
    )
    StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(vae),
        text_encoder=transformers.CLIPTextModel.from_pretrained(clip),
        tokenizer=transformers.PreTrainedTokenizerFast.from_pretrained(clip.parent / "tokenizer"),
        unet=random(unet),
        scheduler=scheduler,
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def test_a_stable_diffusion_of_diffusers_draws_the_same_and_exports_again(
    vae: Path, save_clip: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = stable_diffusion(vae, save_clip(tmp_path), tmp_path / "folder")
    bring(folder, tmp_path / "run")
    pipe: Any = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    told: dict[str, Any] = {"guidance_scale": 3.0, "num_inference_steps": 10}
    theirs = pipe(CAPTIONS, **told, generator=generators(3), output_type="pt").images
    mine = drawn(load(tmp_path / "run"), CAPTIONS, steps=10, guidance=3.0)
    assert mine.std() > 0.05
    assert (mine - theirs).abs().max() < 1e-3
    run = read_run(tmp_path / "run" / "run.yaml")
    assert isinstance(run, Run) and run.model.sampling.guidance == 7.5
    done = export(tmp_path / "run", tmp_path / "again")
    assert done.layout.why == ("30 steps do not divide 1000",)


def test_sd3_and_qwen_take_a_text_encoder_and_answer_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    shape: Any = dict(
        patch_size=2, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16
    )  # as wide as the T5
    sd3 = SD3Transformer2DModel(
        **shape, sample_size=8, in_channels=3, out_channels=3, caption_projection_dim=16, pooled_projection_dim=10,
        pos_embed_max_size=8, qk_norm="rms_norm",
    )  # fmt: skip
    qwen = QwenImageTransformer2DModel(**shape, in_channels=12, out_channels=3, axes_dims_rope=(0, 4, 4))
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.8])
    for name, model in (("sd3", random(sd3)), ("qwen", random(qwen))):
        model.save_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match="reads the tokens of a text encoder; give it by --text PATH"):
            bring(tmp_path / name, tmp_path / "run")
        bring(tmp_path / name, tmp_path / f"run-{name}", [f"{folders['t5']},length=6"])
        pipeline = load(tmp_path / f"run-{name}")
        assert pipeline.config.objective.target == "flow"
        with torch.no_grad():
            cond = pipeline.conditioner(pipeline.conditioner.encode(["a red circle", "two"], torch.zeros(2)))
            mine = pipeline.backbone(x, t, cond)
            if name == "sd3":
                answers = []
                for i in range(2):
                    tokens = cond.tokens[i][cond.mask[i]][None]
                    said = {"encoder_hidden_states": tokens, "pooled_projections": cond.vector[i : i + 1, :10]}
                    answers.append(model(x[i : i + 1], timestep=1000 * t[i : i + 1], **said, return_dict=False)[0])
                theirs = torch.cat(answers)
            else:
                from fromnoise.nn.patch import pack, unpack

                answer = model(pack(x, 2), cond.tokens, cond.mask, t, [[(1, 4, 4)]] * 2, return_dict=False)[0]
                theirs = unpack(answer, 4, 4, 2)
        assert theirs.std() > 0.05
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=0)


def test_a_pipeline_of_sd3_reads_its_t5_and_says_so(folders: dict[str, Path], vae: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    SD3Transformer2DModel(
        patch_size=2, num_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16, sample_size=8,
        in_channels=4, out_channels=4, caption_projection_dim=16, pooled_projection_dim=10, pos_embed_max_size=8,
        qk_norm="rms_norm",
    ).save_pretrained(folder / "transformer")  # fmt: skip
    shutil.copytree(vae, folder / "vae")
    for name in ("text_encoder_3", "tokenizer_3"):
        shutil.copytree(folders["t5"], folder / name)
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    index = {"_class_name": "StableDiffusion3Pipeline", "transformer": ["diffusers", "SD3Transformer2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    done = bring(folder, tmp_path / "run")
    assert done.notes == ["of its text encoders the T5 alone is read, without the CLIPs and their pooled vector"]
    pipeline = load(tmp_path / "run")
    assert pipeline.config.sampling.shift == 3.0
    assert drawn(pipeline, ["a red circle"], steps=2).shape == (1, 3, 16, 16)


def test_a_vae_becomes_a_run_that_is_evaluated_and_trained(vae: Path, tmp_path: Path) -> None:
    from fromnoise.autoencoder.autoencoder import Autoencoder

    bring(vae, tmp_path / "run")
    model = Autoencoder.load(tmp_path / "run" / "checkpoints" / "step-00000000" / "ema.safetensors").vae
    stock: Any = AutoencoderKL.from_pretrained(vae)
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(model.encode(x).mean, stock.encode(x).latent_dist.mean, atol=1e-5, rtol=0)
    assert (tmp_path / "run" / "vae" / "config.json").is_file()
    assert read_run(tmp_path / "run" / "run.yaml").recipe == "imported"


def test_a_run_that_was_made_is_trained_on(tmp_path: Path) -> None:
    from fromnoise.data.config import ShapesConfig
    from fromnoise.training.loop import train
    from fromnoise.training.run import Training

    pipeline = build("own", size=32)
    there_and_back(pipeline, tmp_path)
    run = read_yaml(Run, tmp_path / "run" / "run.yaml")
    training = Training(steps=2, batch=2, compile="off", precision="float32", validate_every=9, preview_every=9)
    run = run.model_copy(update={"training": training, "data": ShapesConfig()})
    from fromnoise.core.config import write_yaml

    write_yaml(run, tmp_path / "run" / "run.yaml")
    trained = train(run, tmp_path / "run")
    assert trained is not None
    names = [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())]
    assert names == ["step-00000000", "step-00000002"]


def test_a_run_that_was_made_opens_from_anywhere_and_under_another_name(
    vae: Path, save_clip: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stable_diffusion(vae, save_clip(tmp_path), Path("folder"))
    bring(Path("folder"), Path("runs/mine"))
    before = drawn(load("runs/mine"), ["a red circle"], steps=2)
    assert read_run(Path("runs/mine/run.yaml")).model.space.path == Path("runs/mine/vae")  # type: ignore[union-attr]
    (tmp_path / "away").mkdir()
    shutil.copytree("runs/mine", "away/copy")
    monkeypatch.chdir(tmp_path / "away")
    copy = tmp_path / "away" / "copy"
    for place in ("../runs/mine", "copy", copy):
        assert torch.equal(drawn(load(place), ["a red circle"], steps=2), before)
    run = read_run(Path("copy/run.yaml"))
    assert isinstance(run, Run) and isinstance(run.model.conditioner, FrozenTextConfig)
    run.model.space.check()
    run.model.conditioner.check()
    assert run == read_run(copy / "run.yaml"), "what is trained on is the same run, however it is named"
    assert run.model == load("copy").config
    export(Path("copy"), Path("again"))
    bring(Path("again"), Path("back"))
    assert torch.equal(drawn(load("back"), ["a red circle"], steps=2), before)
    state = load_file(copy / "vae" / "diffusion_pytorch_model.safetensors")
    save_file({key: value + 1 for key, value in state.items()}, copy / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="vae holds another VAE"):
        load("copy")


class TestRefused:
    """What is not read, and what is told of it."""

    def test_no_folder_and_a_used_one(self, vae: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no folder at"):
            bring(tmp_path / "none", tmp_path / "run")
        with pytest.raises(ValueError, match="it is no folder of diffusers'"):
            (tmp_path / "empty").mkdir()
            bring(tmp_path / "empty", tmp_path / "run")
        with pytest.raises(ValueError, match="is not empty; allowed"):
            bring(vae, tmp_path)

    def test_a_foreign_class_by_its_nearest(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
        with pytest.raises(ValueError, match=r"is 'UNet2DModel'; allowed: .*nearest: UNet2DConditionModel"):
            bring(tmp_path, tmp_path / "run")
        (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
        with pytest.raises(ValueError, match="nearest: StableDiffusionPipeline"):
            bring(tmp_path, tmp_path / "run")

    def test_pickled_weights_are_never_opened(self, vae: Path, save_clip: Any, tmp_path: Path) -> None:
        folder = stable_diffusion(vae, save_clip(tmp_path), tmp_path / "folder")
        for part in ("unet", "vae", "text_encoder"):
            (weights,) = (folder / part).glob("*.safetensors")
            weights.rename(tmp_path / "aside")
            (weights.parent / "pytorch_model.bin").write_bytes(b"\x80\x04c__builtin__\nexit\n.")
            with pytest.raises(ValueError, match="pickled") as caught:
                bring(folder, tmp_path / "run")
            assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
            (tmp_path / "aside").rename(weights)
        (weights,) = (folder / "unet").glob("*.safetensors")
        half = weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
        with pytest.raises(ValueError, match=r"diffusion_pytorch_model\.fp16\.safetensors is there: give it that name"):
            bring(folder, tmp_path / "run")
        half.rename(weights)
        (folder / "unet" / "config.json").unlink()
        with pytest.raises(ValueError, match="lacks its backbone"):
            bring(folder, tmp_path / "run")

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"attention_head_dim": (2, 4)}, "attention_head_dim is .*; allowed: one number for all levels"),
            ({"use_linear_projection": True}, "use_linear_projection is True; allowed: False"),
            ({"out_channels": 8}, "out_channels is 8; allowed: as many as in_channels, 4"),
        ],
    )
    def test_a_unet_that_ours_cannot_be(
        self, changes: Any, told: str, vae: Path, save_clip: Any, tmp_path: Path
    ) -> None:
        folder = stable_diffusion(vae, save_clip(tmp_path), tmp_path / "folder", **changes)
        with pytest.raises(ValueError, match=told):
            bring(folder, tmp_path / "run")

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"_class_name": "HeunDiscreteScheduler"}, "HeunDiscreteScheduler'; allowed: .*nearest"),
            ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is given"),
            ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule is 'squaredcos_cap_v2'; allowed: linear"),
            ({"beta_end": 0.001}, "of the signal is left"),
        ],
    )
    def test_a_schedule_that_there_is_not(
        self, changes: Any, told: str, vae: Path, save_clip: Any, tmp_path: Path
    ) -> None:
        folder = stable_diffusion(vae, save_clip(tmp_path), tmp_path / "folder")
        file = folder / "scheduler" / "scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        with pytest.raises(ValueError, match=told) as caught:
            bring(folder, tmp_path / "run")
        assert "\n" not in str(caught.value)

    def test_latents_without_a_vae_and_a_text_encoder_of_another_width(
        self, folders: dict[str, Path], vae: Path, tmp_path: Path
    ) -> None:
        QwenImageTransformer2DModel(
            patch_size=2, num_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16,
            in_channels=16, out_channels=4, axes_dims_rope=(0, 4, 4),
        ).save_pretrained(tmp_path / "qwen")  # fmt: skip
        with pytest.raises(ValueError, match="latents of 4 channels; give their VAE by --vae PATH"):
            bring(tmp_path / "qwen", tmp_path / "run", [str(folders["t5"])])
        with pytest.raises(ValueError, match="tokens are 12 wide; this backbone reads 16"):
            bring(tmp_path / "qwen", tmp_path / "run", [f"{folders['bert']},length=6"], vae)
        bring(tmp_path / "qwen", tmp_path / "run", [f"{folders['t5']},length=6"], vae)


def test_diffusers_opens_what_was_brought_and_exported_again(vae: Path, save_clip: Any, tmp_path: Path) -> None:
    folder = stable_diffusion(vae, save_clip(tmp_path), tmp_path / "folder")
    bring(folder, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "again")
    pipe: Any = DiffusionPipeline.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert type(pipe.unet).__name__ == "UNet2DConditionModel"
