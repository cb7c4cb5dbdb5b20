"""Faults of a training, planted one by one in the package's own code: each is found, with its number."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from fromnoise.autoencoder import autoencoder
from fromnoise.core.config import write_yaml
from fromnoise.diffusion.loss import Objective
from fromnoise.doctor import fields, gradients, keeping, optimisation, schedule, vae
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.recipes.generations import dit, sd1
from fromnoise.training import checkpoint, drawing, loop
from fromnoise.training.ema import Ema
from fromnoise.training.run import VAERun

Examined = Callable[..., Any]
Judge = Callable[..., None]
SLOW_IMPORT = pytest.mark.filterwarnings("ignore")  # torch warns of its own code when its compiler is imported


def test_an_average_that_keeps_the_first_weights(
    examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any
) -> None:
    subject = examined()
    is_fine(optimisation.average(subject))
    steps = subject.run.training.model_copy(update={"steps": 18_750})
    subject.run = subject.run.model_copy(update={"training": steps})
    monkeypatch.setattr(Ema, "decay", lambda self, step: 0.9999)
    is_wrong(optimisation.average(subject), "15.33% of the first weights is left after 18,750 steps")


def test_parameters_that_are_not_averaged(examined: Examined, is_wrong: Judge, monkeypatch: Any) -> None:
    start = Ema.__init__

    def forgetful(self: Ema, model: Any, *rest: Any) -> None:
        start(self, model, *rest)
        kept = [i for i, name in enumerate(self.names) if "time_text_embed" not in name]
        self.names = [self.names[i] for i in kept]
        self.weights = [self.weights[i] for i in kept]
        self.average = [self.average[i] for i in kept]

    monkeypatch.setattr(Ema, "__init__", forgetful)
    is_wrong(optimisation.average(examined()), "8 parameters are not averaged (backbone.time_text_embed")


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        (lambda step, *_: 0.5 * (1 + math.cos(math.pi * step / 20)), "restarts 5 times"),  # epochs taken for steps
        (lambda step, *_: 0.5 * (1 + math.cos(math.pi * (step // 50) / 200)), "ends at 99.94%"),  # steps for epochs
        (lambda step, *_: 0.5, "rises to 50%"),
    ],
)
def test_curves_of_the_learning_rate(
    examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any, curve: Any, words: str
) -> None:
    subject = examined()
    is_fine(schedule.learning_rate(subject))
    monkeypatch.setattr(loop, "schedule", curve)
    is_wrong(schedule.learning_rate(subject), words)


def test_a_rate_that_was_restarted(examined: Examined, is_wrong: Judge, is_fine: Judge, tmp_path: Path) -> None:
    subject = examined()
    subject.directory = tmp_path
    for rates, judge in (((0.1, 1.0, 0.5, 0.1), is_fine), ((0.1, 1.0, 0.5, 0.9, 0.1), is_wrong)):
        lines = [json.dumps({"step": step, "learning_rate": rate}) for step, rate in enumerate(rates)]
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
        judge(schedule.recorded_rate(subject))


def test_parameters_that_the_optimizer_does_not_hold(
    examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any
) -> None:
    subject, optimizer = examined(), gradients.Optimizer
    is_fine(gradients.optimized(subject))

    class Forgetful(torch.nn.Module):
        def __init__(self, model: Any):
            super().__init__()
            self.backbone = model.backbone

    monkeypatch.setattr(gradients, "Optimizer", lambda model, config: optimizer(Forgetful(model), config))
    is_wrong(gradients.optimized(subject), "nothing of the conditioner", "(conditioner.")


def test_averages_of_16_bits(examined: Examined, is_wrong: Judge) -> None:
    subject = examined()
    subject.state.ema.average = [x.bfloat16() for x in subject.state.ema.average]
    is_wrong(gradients.optimized(subject), "bfloat16 and float32")


class Dropping(Objective):
    """An objective with a field that nobody reads."""

    cfg_dropout_prob: float = 0.1


def test_a_field_that_is_never_read(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any) -> None:
    subject = examined()
    is_fine(fields.unread_fields(subject))
    is_wrong(fields.unread_fields(examined(objective=Dropping(target="flow", measure="flow"))), "cfg_dropout_prob")


def test_a_field_that_is_set_and_does_nothing(examined: Examined, is_wrong: Judge, is_fine: Judge) -> None:
    sampling = Sampling(sampler="euler", steps=10, guidance=3.0)
    backbone = MMDiTConfig(patch=8, width=32, depth=2, head_width=16, largest=64)  # which cropped places alone read
    is_wrong(fields.unread_fields(examined(backbone=backbone, sampling=sampling)), "MMDiTConfig.largest")
    is_fine(fields.unread_fields(examined(backbone=backbone.model_copy(update={"absolute": "cropped"}))))


def test_models_that_are_not_of_one_size(examined: Examined, is_wrong: Judge, is_fine: Judge) -> None:
    subject = examined()
    assert optimisation.parameters(subject) is None
    subject.family = {"dit": dit(), "again": dit()}
    is_fine(optimisation.parameters(subject))
    wide = sd1().model.backbone.model_copy(update={"width": 32})
    subject.family["sd1"] = sd1().model_copy(update={"model": sd1().model.model_copy(update={"backbone": wide})})
    is_wrong(optimisation.parameters(subject), "dit has 1,605,872", "sd1 5,820,259 of 3 that are said to be alike")


@SLOW_IMPORT
def test_a_checkpoint_without_its_config(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any) -> None:
    subject = examined()
    is_fine(keeping.round_trip(subject))
    monkeypatch.setattr(
        Pipeline,
        "save",
        lambda self, path, metadata: checkpoint.save_tensors(path, self.state_dict(), dict(metadata)),
    )
    is_wrong(keeping.round_trip(subject), "holds no pipeline: its metadata has no config")


def test_a_run_whose_checkpoints_have_no_config(examined: Examined, is_wrong: Judge, tmp_path: Path) -> None:
    subject = examined()
    subject.directory = tmp_path
    place = tmp_path / "checkpoints" / "step-00000001"
    place.mkdir(parents=True)
    for name in ("model", "ema"):
        checkpoint.save_tensors(place / f"{name}.safetensors", {"x": torch.zeros(1)}, {})
    is_wrong(keeping.recorded_config(subject), "2 of 2 files lack their config")


@SLOW_IMPORT
def test_names_that_compilation_changes(examined: Examined, is_wrong: Judge, monkeypatch: Any) -> None:
    @contextmanager
    def wrapped(self: Pipeline, wanted: bool = True) -> Any:
        backbone = self.backbone
        self.backbone = torch.compile(backbone)
        yield
        self.backbone = backbone

    subject = examined()
    monkeypatch.setattr(Pipeline, "compiled", wrapped)
    is_wrong(keeping.round_trip(subject), "compilation changes ", " names (backbone._orig_mod.")


@SLOW_IMPORT
def test_pickles(examined: Examined, is_wrong: Judge, monkeypatch: Any, tmp_path: Path) -> None:
    subject = examined()
    subject.directory = tmp_path
    torch.save({"x": torch.zeros(1)}, tmp_path / "last.ckpt")
    is_wrong(keeping.round_trip(subject), "last.ckpt is pickled")
    subject.directory = None
    monkeypatch.setattr(checkpoint, "save_tensors", lambda path, tensors, metadata: torch.save(tensors, path))
    is_wrong(keeping.round_trip(subject), "optimizer.safetensors is pickled")


@SLOW_IMPORT
def test_checkpoints_that_are_half_written(examined: Examined, is_wrong: Judge, monkeypatch: Any) -> None:
    def careless(root: Path, state: Any, keep: int) -> Path:
        path = root / checkpoint.name_of(state.progress.step)
        path.mkdir(parents=True)
        try:
            state.model.save(path / "model.safetensors", {})
        except OSError as error:
            raise ValueError(str(error)) from None
        return path

    subject = examined()
    monkeypatch.setattr(checkpoint, "save", careless)
    is_wrong(keeping.round_trip(subject), "step-00000001 is half written")


def test_chance_without_a_seed(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any) -> None:
    subject = examined()
    is_fine(keeping.seeds(subject))
    monkeypatch.setattr(drawing, "generator_of", lambda seed, step: torch.default_generator)
    is_wrong(keeping.seeds(subject), "2 of 6 tensors of a step")
    monkeypatch.undo()
    subject = examined()
    monkeypatch.setattr(torch, "manual_seed", lambda seed: torch.default_generator)
    is_wrong(keeping.seeds(subject), "weights change with the same seed")


def test_a_divergence_that_is_summed_beside_a_mean_error(
    examined: Examined, vae_run: VAERun, is_wrong: Judge, is_fine: Judge, monkeypatch: Any
) -> None:
    is_fine(vae.kl_weight(examined(vae_run)))
    data = vae_run.data.model_copy(update={"size": 128})
    model = vae_run.model.model_copy(update={"loss": vae_run.model.loss.model_copy(update={"kl": 1e-5})})
    subject = examined(vae_run.model_copy(update={"data": data, "model": model}))
    divergence = autoencoder.divergence
    monkeypatch.setattr(autoencoder, "divergence", lambda posterior: 4 * 16 * 16 * divergence(posterior))
    is_wrong(vae.kl_weight(subject), "beta 0.49")


def test_latents_whose_scale_is_not_stored(
    examined: Examined, vae_run: VAERun, vae: Path, is_wrong: Judge, tmp_path: Path
) -> None:
    from fromnoise.doctor import vae as checks

    subject = examined(vae_run)
    subject.directory = tmp_path
    assert checks.scale(subject) is None
    (tmp_path / "vae").symlink_to(vae)
    config = json.loads((vae / "config.json").read_text())
    told = {key: value for key, value in config.items() if key != "scaling_factor"}
    (tmp_path / "vae").unlink()
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps(told))
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").symlink_to(vae / "diffusion_pytorch_model.safetensors")
    is_wrong(checks.scale(subject), "none is stored")


@SLOW_IMPORT
def test_nothing_is_written_into_a_run(examined: Examined, tiny: Callable[..., Any], tmp_path: Path) -> None:
    write_yaml(tiny(), tmp_path / "run.yaml")
    (tmp_path / "checkpoints" / ".step-00000007.partial").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    keeping.round_trip(examined(tiny(), tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
