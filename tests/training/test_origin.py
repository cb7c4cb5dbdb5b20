"""Runs that begin with the weights of another, at another size."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fromnoise.conditioning.config import LabelConfig
from fromnoise.core.config import read_yaml, write_yaml
from fromnoise.data.config import OWN_DATA, CIFAR10Config, ShapesConfig
from fromnoise.diffusion.path import VP, Linear
from fromnoise.diffusion.times import LogitNormal, Uniform, shifted
from fromnoise.models.config import DiTConfig, MMDiTConfig
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.load import load
from fromnoise.space.config import LatentConfig
from fromnoise.training import drawing, loop
from fromnoise.training.loop import train
from fromnoise.training.origin import adapt, unsealed
from fromnoise.training.run import Run, Start, VAERun

Making = Callable[..., Run]


@pytest.fixture(autouse=True)
def few_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "CAPTIONS", 500)  # each training here learns its vocabulary


def changed(config: Any, **fields: Any) -> Any:
    """`config` with the fields named by path, as model__backbone, in place of its own."""
    for key, value in fields.items():
        first, _, rest = key.partition("__")
        inner = changed(getattr(config, first), **{rest: value}) if rest else value
        config = config.model_copy(update={first: inner})
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_run: Making) -> Path:
    """A trained run at 32 pixels with learned places."""
    backbone = MMDiTConfig(width=16, depth=2, head_width=8, patch=8, absolute="learned", rotation="none", grid=4)
    sampling = Sampling(steps=1, guidance=1.0, interval=(0.0, 0.9), shift=1.5)
    run = changed(tiny_run(batch=8), model__backbone=backbone, model__sampling=sampling)
    run = changed(run, model__objective__times=LogitNormal(shift=1.5))
    place = tmp_path_factory.mktemp("origin") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "CAPTIONS", 500)
        train(run, place)
    return place


@pytest.fixture
def small(tmp_path: Path, trained: Path) -> Path:
    """That run, to do with as a test likes."""
    return Path(shutil.copytree(trained, tmp_path / "small"))


def larger(small: Path, size: int = 64, **fields: Any) -> Run:
    """The same settings at another size, to begin with those weights."""
    run = read_yaml(Run, small / "run.yaml")
    return changed(run, data=ShapesConfig(size=size), start=Start(run=small), **fields)


def test_a_larger_run_begins_where_the_smaller_ended(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = loop.start
    states = []

    def watched(*args: Any) -> Any:
        state = begun(*args)
        states.append({name: value.clone() for name, value in state.model.state_dict().items()})
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "start", watched)
        train(larger(small), tmp_path / "large")
    told = capsys.readouterr().err
    assert f"begun with the weights of {small / 'checkpoints' / 'step-00000006' / 'ema.safetensors'}" in told
    old = load(small)
    weights = old.state_dict()
    table = weights.pop("backbone.absolute.table")
    assert torch.equal(states[0].pop("backbone.absolute.table"), F.interpolate(table, (8, 8), mode="bicubic"))
    assert states[0].keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in states[0].items())
    new = load(tmp_path / "large")
    assert new.conditioner.state == old.conditioner.state
    assert new.config.size == 64 and new("a red circle", steps=1)[0].size == (64, 64)

    # What is recorded is all that a resumed run needs.
    shutil.rmtree(tmp_path / "large" / "checkpoints" / "step-00000006")
    again = train(larger(small), tmp_path / "large")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), new.parameters(), strict=True))
    shutil.rmtree(small)
    shutil.rmtree(tmp_path / "large" / "checkpoints" / "step-00000006")
    recorded = changed(read_yaml(Run, tmp_path / "large" / "run.yaml"), training__log_every=1)
    again = train(recorded, tmp_path / "large")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), new.parameters(), strict=True))


def test_latents_are_moved_and_scaled_as_the_weights_know_them(tmp_path: Path, vae: Path, tiny_run: Making) -> None:
    backbone = MMDiTConfig(width=16, depth=1, head_width=8, patch=8)
    run = changed(tiny_run(steps=1), model__backbone=backbone, model__space=LatentConfig(path=vae))
    train(run, tmp_path / "small")
    measured = read_yaml(Run, tmp_path / "small" / "run.yaml").model.space
    large = changed(run, data=ShapesConfig(size=64), start=Start(run=tmp_path / "small"))
    assert train(large, tmp_path / "large").config.space == measured != run.model.space


@pytest.mark.parametrize("kind", OWN_DATA)
def test_other_pictures_may_follow(tiny_run: Making, kind: Any) -> None:
    old = changed(tiny_run(), data=kind(path=Path("at-32"), sha256="a" * 64))
    following = changed(old, data__path=Path("at-64"))
    assert unsealed(following, old).data == kind(path=Path("at-64"))
    recorded = changed(following, data__sha256="b" * 64)
    assert unsealed(recorded, old) == recorded
    assert unsealed(following, tiny_run()) == following


def test_classes_may_be_named_where_they_were_not(tiny_run: Making) -> None:
    old = changed(tiny_run(), model__conditioner=LabelConfig(classes=2, width=16))
    named = changed(old, model__conditioner__names=("cat", "dog"))
    assert adapt(named, old, print) == named


def test_a_vae_s_run_is_refused(tmp_path: Path, tiny_run: Making) -> None:
    write_yaml(VAERun(), tmp_path / "run.yaml")
    (tmp_path / "ema.safetensors").touch()
    run = changed(tiny_run(), start=Start(run=tmp_path))
    with pytest.raises(ValueError, match="the run of a VAE; allowed: that of a model that draws"):
        train(run, tmp_path / "large")


def sized(run: Run, size: int) -> Run:
    """As `derive` leaves it."""
    return changed(run, model__size=size)


def test_what_hangs_on_the_size_is_derived_and_told(tiny_run: Making) -> None:
    old = changed(tiny_run(batch=64, accumulate=4), model__objective__times=LogitNormal(mean=0.5, shift=1.5))
    old = changed(old, model__sampling=Sampling(shift=3.0, interval=(0.1, 0.9)))
    told: list[str] = []
    run = adapt(sized(changed(old, start=Start(run=Path("runs/small"))), 96), old, told.append)
    assert run.model.objective.times == LogitNormal(mean=0.5, shift=4.5)
    assert run.model.sampling.shift == 9.0
    assert run.training.batch == 8  # 64 / 9 is 7.1, in four equal parts 8
    assert run.training.optimizer == old.training.optimizer
    # At its own time the interval begins and ends where a picture of 9 times the pixels hides as much: at a third of
    # the signal for each noise.
    for before, now in zip((0.1, 0.9), run.model.sampling.interval, strict=True):
        assert (1 - now) / now == pytest.approx((1 - before) / before / 3)
    assert told == [
        "3 times the side of the pictures of runs/small: model.objective.times.shift 1.5 -> 4.5, "
        "model.sampling.interval [0.1, 0.9] -> [0.25, 0.9643], model.sampling.shift 3 -> 9, training.batch 64 -> 8"
    ]


def test_what_is_given_otherwise_stays_as_given(tiny_run: Making) -> None:
    old = changed(tiny_run(batch=64), model__sampling=Sampling(shift=1.5))
    begun = sized(changed(old, start=Start(run=Path("runs/small"))), 64)
    given = changed(begun, training__batch=32, model__sampling__shift=2.0, model__sampling__interval=(0.0, 0.5))
    given = changed(given, model__objective__times=Uniform())
    told: list[str] = []
    assert adapt(given, old, told.append) == given
    as_was = changed(begun, start__adapt=False)
    assert adapt(as_was, old, told.append) == as_was
    assert told == 2 * ["2 times the side of the pictures of runs/small: all settings as given"]
    assert adapt(sized(begun, 32), old, told.append) == sized(begun, 32)  # the same size: nothing to derive or to tell
    assert len(told) == 2
    assert adapt(sized(begun, 1024), old, told.append).training.batch == 1
    assert adapt(changed(begun, training__batch=0), changed(old, training__batch=0), told.append).training.batch == 0


def test_other_paths_than_the_line_keep_their_times(tiny_run: Making) -> None:
    old = changed(tiny_run(), model__path=VP())
    run = adapt(sized(changed(old, start=Start(run=Path("x"))), 64), old, print)
    assert run.model.objective == old.model.objective and run.model.sampling == old.model.sampling
    assert run.training.batch == 1


def test_a_picture_of_more_pixels_is_hidden_as_much_at_the_shifted_time() -> None:
    """Esser et al. 2024, section 5.3.2: n noisy pixels leave their one value uncertain by sigma / alpha / sqrt(n)."""
    t = torch.linspace(0.05, 0.95, 7)
    small, large = Linear()(t), Linear()(shifted(t, 2.0))
    torch.testing.assert_close(large.sigma / large.alpha / 2, small.sigma / small.alpha, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"model__backbone__width": 32}, "model.backbone.width is 16 there, 32 here"),
        ({"model__backbone": DiTConfig(patch=8)}, "model.backbone.type is 'mmdit' there, 'dit' here"),
        ({"model__backbone__grid": 5}, "model.backbone.grid is 4 there, 5 here"),
        ({"model__conditioner__depth": 2}, "model.conditioner.depth is 1 there, 2 here"),
        ({"model__space__shift": 0.5}, "model.space.shift is 0.0 there, 0.5 here"),
        ({"model__objective__target": "eps"}, "model.objective.target is 'x0' there, 'eps' here"),
        ({"model__path": VP()}, "model.path.type is 'linear' there, 'vp' here"),
    ],
)
def test_weights_of_another_architecture_are_refused_by_its_first_difference(
    tmp_path: Path, small: Path, fields: dict[str, Any], line: str
) -> None:
    with pytest.raises(ValueError) as refused:
        train(larger(small, **fields), tmp_path / "large")
    assert str(refused.value) == f"the weights of {small} do not fit: {line}"
    assert not (tmp_path / "large").exists()


def test_a_run_that_is_not_there_or_not_trained_is_refused_before_pictures_are_read(
    tmp_path: Path, small: Path
) -> None:
    data = CIFAR10Config(path=tmp_path / "nothing")
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    for place, why in (missing, "is no directory"), (empty, "has no run.yaml"):
        with pytest.raises(ValueError) as refused:
            train(changed(larger(small), data=data, start__run=place), tmp_path / "large")
        assert str(refused.value) == f"start.run is {place}, which {why}; allowed: the directory of a trained run"
    shutil.rmtree(small / "checkpoints")
    with pytest.raises(ValueError, match=f"no checkpoint in {small}: train it first"):
        train(changed(larger(small), data=data), tmp_path / "large")
    assert not (tmp_path / "large").exists()


def test_a_damaged_checkpoint_is_told(tmp_path: Path, small: Path) -> None:
    file = small / "checkpoints" / "step-00000006" / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=str(file)):
        train(larger(small), tmp_path / "large")
    assert not (tmp_path / "large").exists()
