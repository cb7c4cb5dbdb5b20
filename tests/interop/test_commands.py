"""export, import and push on the command line, and ONNX beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.autoencoder.config import AutoencoderConfig
from fromnoise.cli import train
from fromnoise.cli.flags import parse
from fromnoise.cli.main import main
from fromnoise.core.config import write_yaml
from fromnoise.interop import hub, onnx
from fromnoise.interop.layout import Layout, layout_of
from fromnoise.models.config import CrossDiTConfig, VAEConfig
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.load import load
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.config import LatentConfig
from fromnoise.training.run import Run

from .conftest import BACKBONES, build


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with one checkpoint."""
    place = tmp_path / "runs" / "own" / "checkpoints" / "step-00000010"
    place.mkdir(parents=True)
    for name in ("model", "ema"):
        build("own").save(place / f"{name}.safetensors", {})
    return tmp_path / "runs" / "own"


def test_export_tells_the_layout_and_import_makes_a_run_that_draws(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), str(tmp_path / "folder")]) == 0
    told = capsys.readouterr().out
    assert "folder: FromnoisePipeline" in told and "Backbone (own code)" in told and "left out: " in told
    assert "not one of diffusers' own, for none reads what this MMDiT is told" in told
    assert f'from_pretrained("{tmp_path / "folder"}", trust_remote_code=True)' in told
    assert main(["import", str(tmp_path / "folder"), "--out", str(tmp_path / "again")]) == 0
    assert main(["sample", str(tmp_path / "again"), "a red circle", "--out", str(tmp_path / "pictures")]) == 0
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 1


def test_what_is_exported_draws_as_a_sweep_has_chosen(run: Path, tmp_path: Path) -> None:
    chosen = Sampling(sampler="heun", steps=3, guidance=1.5)
    write_yaml(chosen, run / "sampling.yaml")
    assert main(["export", str(run), str(tmp_path / "folder")]) == 0
    assert "| drawing | heun, 3 steps, guidance 1.5 |" in (tmp_path / "folder" / "README.md").read_text()
    pipe: Any = DiffusionPipeline.from_pretrained(tmp_path / "folder", trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe("a red circle", generator=[torch.Generator().manual_seed(0)], output_type="pt").images
    pipeline = load(run)
    *_, last = pipeline.stream("a red circle", precision="float32")
    torch.testing.assert_close(theirs, pipeline.space.decode(last.x) / 2 + 0.5)
    assert main(["import", str(tmp_path / "folder"), "--out", str(tmp_path / "again")]) == 0
    assert load(tmp_path / "again").config.sampling == chosen


def test_export_fills_the_empty_folder_that_it_stands_in_or_a_link_to_one(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "here")
    assert main(["export", str(run), "."]) == 0
    assert Path("README.md").read_text().count("\n# here\n") == 1
    assert main(["export", str(run), str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink()
    parts = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("here", "there")]
    assert parts[0] == parts[1] and "model_index.json" in parts[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "link", "runs", "there"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["export"], r"a run and a folder must be given, not 0 words; usage: fromnoise export \[RUN\] DIR"),
        (["export", "RUN"], "is not empty; allowed: a new or an empty directory"),
        (["export", "nowhere", "DIR"], "nothing at nowhere; allowed: a run directory"),
        (["export", "RUN", "."], "is not empty; allowed: a new or an empty directory"),
        (["import", "nowhere"], "--out must name the directory of the run to make"),
        (["import", "nowhere", "--out", "DIR"], "no folder at nowhere; allowed: one that diffusers"),
        (["import", "RUN", "--out", "DIR"], "it is no folder of diffusers'"),
        (["push", "RUN", "nobody"], "'nobody' names no repository; allowed: OWNER/NAME"),
        (["push", "RUN", "a/b", "--dryrun"], "unknown flag --dryrun; nearest: --dry_run"),
        (["exprt", "RUN", "DIR"], "unknown command 'exprt'; allowed: .*nearest: export"),
    ],
)
def test_bad_input_is_one_line(
    args: list[str], told: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent.parent)
    assert main([str(run) if arg == "RUN" else arg for arg in args]) == 2
    error = capsys.readouterr().err
    assert re.search(told, error) and error.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["runs"]


def test_a_vae_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import AutoencoderKL

    run = tmp_path / "vae-run"
    config = VAEConfig(latent_channels=2, width=8, multipliers=(1, 2), layers=1, groups=4)
    model = Autoencoder.build(AutoencoderConfig(vae=config), 0)
    place = run / "checkpoints" / "step-00000001"
    place.mkdir(parents=True)
    model.save(place / "ema.safetensors", {})
    (run / "vae").mkdir()
    (run / "vae" / "config.json").write_text('{"latents_mean": [0.5, -1.0], "latents_std": [2.0, 3.0]}')
    (run / "run.yaml").write_text("type: vae\n")
    body = "# vae-run\n\n## How to use it\n\nvae-run/vae\n\n## Limits\n\nMany.\n"
    (run / "README.md").write_text(body)
    monkeypatch.chdir(place)  # where the weights' path is but a name
    assert main(["export", "ema.safetensors", str(tmp_path / "folder")]) == 0
    page = (tmp_path / "folder" / "README.md").read_text()
    assert page.endswith("## Limits\n\nMany.\n") and "vae-run/vae" not in page
    stock: Any = AutoencoderKL.from_pretrained(tmp_path / "folder")
    assert stock.config.latents_mean == [0.5, -1.0] and stock.config.latents_std == [2.0, 3.0]
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        z = stock.encode(x).latent_dist.mean
        torch.testing.assert_close(model.vae.encode(x).mean, z, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.vae.decode(z), stock.decode(z).sample, atol=1e-5, rtol=0)
    assert main(["import", str(tmp_path / "folder"), "--out", str(tmp_path / "again")]) == 0
    again = Autoencoder.load(tmp_path / "again" / "checkpoints" / "step-00000000" / "ema.safetensors")
    for key, value in model.vae.state_dict().items():
        assert torch.equal(value, again.vae.state_dict()[key])
    assert main(["export", str(run), str(tmp_path / "other"), "--onnx"]) == 2
    assert not (tmp_path / "other").exists()


def test_onnx_answers_as_torch_does(run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = tmp_path / "backbone.onnx"
    pipeline = build(CrossDiTConfig(patch=2, width=16, depth=1, head_width=8))
    assert onnx.export_onnx(pipeline, file) < 1e-3
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    values = onnx.inputs(pipeline, 4, 7)  # another batch and length than were written
    names = [one.name for one in session.get_inputs()]
    feeds = {name: value.numpy() for name, value in zip(onnx.NAMES, values, strict=True) if name in names}
    (answer,) = session.run(None, feeds)
    with torch.no_grad():
        wanted = onnx.Backbone(pipeline.backbone)(*values).numpy()
    assert np.abs(wanted).max() > 0.1 and np.abs(answer - wanted).max() < 1e-3
    pipeline.backbone.proj_out.bias.data += 1  # a file that is another network's is found out
    with torch.no_grad():
        assert onnx.difference(session, onnx.Backbone(pipeline.backbone), values) > 0.9


def test_push_lists_what_it_would_upload_and_asks_nobody(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: Any) -> str:
        raise AssertionError("something was uploaded")

    monkeypatch.setattr(hub, "upload", refuse)
    assert main(["push", str(run), "someone/shapes-model", "--dry-run"]) == 0
    told = capsys.readouterr().out
    for name in ("README.md", "model_index.json", "transformer/config.json", "fromnoise.json"):
        assert f"  {name}\n" in told
    assert "KiB  transformer/diffusion_pytorch_model.safetensors" in told
    assert "nothing was uploaded to someone/shapes-model" in told


def test_push_uploads_the_folder_with_its_card(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[Any] = []

    class Api:
        def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
            said.append((name, private))

        def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> str:
            said.append((folder_path / "README.md").read_text(encoding="utf-8"))
            return f"https://hub/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    (run / "run.yaml").write_text("recipe: shapes\n")
    front = "---\nlibrary_name: fromnoise\nlicense: mit\n---\n"
    body = "# own\n\n## How it was trained\n\nLong.\n\n## How to draw\n\nfromnoise sample\n\n## Limits\n\nMany.\n"
    (run / "README.md").write_text(front + body)
    assert main(["push", str(run), "someone/shapes-model", "--private"]) == 0
    assert said[0] == ("someone/shapes-model", True)
    assert said[1].startswith("---\nlibrary_name: diffusers\nlicense: mit\npipeline_tag: text-to-image\n")
    assert said[1].endswith("## How it was trained\n\nLong.\n\n## Limits\n\nMany.\n")
    assert 'from_pretrained("someone/shapes-model", trust_remote_code=True)' in said[1]
    assert "https://hub/someone/shapes-model" in capsys.readouterr().out


def test_a_hub_that_refuses_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub.errors import LocalTokenNotFoundError

    class Api:
        def create_repo(self, *args: Any, **options: Any) -> None:
            raise LocalTokenNotFoundError("no token")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(ValueError, match="nobody is logged in to the hub: run `hf auth login` first"):
        hub.upload(tmp_path, "someone/shapes-model", False)


def test_the_shipped_model_is_exported(tmp_path: Path) -> None:
    from fromnoise.pipeline.place import shipped

    assert main(["export", str(tmp_path / "folder")]) == 0
    assert main(["import", str(tmp_path / "folder"), "--out", str(tmp_path / "run")]) == 0
    ours, again = load(shipped()).state_dict(), load(tmp_path / "run").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in ours.items())


def test_the_run_that_the_page_tells_of_opens_in_stable_diffusions_pipeline(
    vae: Path, save_clip: Any, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "diffusers.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^fromnoise train ldm (.*)$", page, re.M)
    run, words = parse(train.start("ldm")[0], line.split(), usage="", description="")
    assert isinstance(run, Run) and not words
    conditioner: Any = run.model.conditioner
    (encoder,) = conditioner.encoders
    clip = encoder.model_copy(update={"path": str(save_clip(tmp_path)), "length": 10})  # as long as the toy's texts
    small = {
        "backbone": BACKBONES["unet"],
        "conditioner": conditioner.model_copy(update={"encoders": (clip,), "width": 16}),
        "space": LatentConfig(path=vae, shift=(0.0,), scale=(1.0,)),
    }
    pipeline = Pipeline.build(run.model.model_copy(update=small), [], 0)
    assert layout_of(pipeline) == Layout("stable-diffusion", "StableDiffusionPipeline")
