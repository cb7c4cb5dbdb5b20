"""Paths: ends, slopes, knots, the terminal signal, and the one place where a time meets a sample."""

import subprocess
import sys
from itertools import pairwise
from typing import Annotated

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fromnoise.core.config import Kind
from fromnoise.diffusion import path as paths
from fromnoise.diffusion.path import VP, Coefs, Cosine, Linear, Path, expand, log_alpha_bar, mix

SD = VP(beta_start=0.00085, beta_end=0.012, power=2)
PATHS = [Linear(), Cosine(), VP(), VP.rescaled(50), SD]
some_path = st.sampled_from(PATHS)
steady = settings(max_examples=100, deadline=None, derandomize=True)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_ends(path):
    ends = path(torch.tensor([0.0, 1.0]))
    assert ends.alpha[0] == 1
    assert ends.sigma[0] == 0
    assert 0 <= ends.alpha[1] < (0.07 if path is SD else 0.01)
    assert ends.sigma[1] == pytest.approx(1, abs=3e-3 if path is SD else 1e-4)
    assert all(c.isfinite().all() and c.dtype == torch.float32 for c in ends)


@steady
@given(path=some_path, t=st.floats(0.002, 0.998))
def test_slopes_are_those_of_the_path(path, t):
    h = 1e-6
    before, here, after = (path(torch.tensor([x], dtype=torch.float64)) for x in (t - h, t, t + h))
    assert (after.alpha - before.alpha).item() / (2 * h) == pytest.approx(here.d_alpha.item(), rel=2e-4, abs=1e-8)
    assert (after.sigma - before.sigma).item() / (2 * h) == pytest.approx(here.d_sigma.item(), rel=2e-4, abs=1e-8)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_signal_falls_and_noise_rises_everywhere(path):
    c = path(torch.linspace(0, 1, 20001, dtype=torch.float64))
    assert (c.alpha.diff() < 0).all()
    assert (c.sigma.diff() > 0).all()


@steady
@given(path=st.sampled_from(PATHS[1:]), t=st.floats(0, 1))
def test_variance_is_preserved(path, t):
    c = path(torch.tensor([t], dtype=torch.float64))
    assert (c.alpha**2 + c.sigma**2).item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_float32_is_as_good_as_float64(path):
    t = torch.linspace(0.001, 0.999, 4001)
    for single, double in zip(path(t), path(t.double()), strict=True):
        torch.testing.assert_close(single.double(), double, rtol=3e-5, atol=0)


@pytest.mark.parametrize("path", [VP(), VP.rescaled(200), VP(beta_start=0.02, beta_end=0.02, steps=600), SD], ids=repr)
def test_vp_is_exact_at_the_knots(path):
    n, p = path.steps, path.power
    betas = torch.linspace(path.beta_start ** (1 / p), path.beta_end ** (1 / p), n, dtype=torch.float64) ** p
    t = torch.arange(1, n + 1, dtype=torch.float64) / n
    torch.testing.assert_close(path(t).alpha ** 2, (1 - betas).cumprod(0), rtol=1e-12, atol=0)


def test_stable_diffusion_leaves_its_known_share_of_the_signal():
    # Lin et al. 2023, Table 1: sqrt(alpha-bar) 0.068265 at the last step.
    assert SD(torch.ones(1, dtype=torch.float64)).alpha.item() == pytest.approx(0.068265, abs=5e-7)


def test_vp_has_no_kink_at_the_knots():
    # On a straight line between knots the slope of log alpha-bar would jump by 10 % at the third knot.
    knots = torch.arange(1, 1000, dtype=torch.float64) / 1000
    left, right = VP()(knots - 1e-10), VP()(knots + 1e-10)
    torch.testing.assert_close(left.d_alpha, right.d_alpha, rtol=1e-5, atol=0)


def test_vp_ends_the_same_for_any_number_of_steps():
    ends = [VP()(torch.linspace(0, 1, n + 1)).alpha[-1].item() for n in (1, 7, 28, 1000)]
    assert max(ends) - min(ends) == 0
    # Not exactly equal across numbers of betas: log(1 - beta) is not -beta.
    assert [VP.rescaled(n)(torch.ones(1)).alpha.item() for n in (200, 1000, 4000)] == pytest.approx(
        [ends[0]] * 3, rel=0.15
    )


def test_vp_table_made_while_sampling_serves_training():
    path = VP(beta_end=0.021)  # no other test has made this table
    with torch.inference_mode():
        path(torch.rand(2))
    x = torch.ones(2, 3, requires_grad=True)
    mix(path(torch.full((2,), 0.5)), x, x.detach()).sum().backward()
    assert x.grad is not None
    assert x.grad.sum() > 0


def test_vp_refuses_a_signal_that_is_left_at_the_end():
    with pytest.raises(
        ValidationError,
        match=r"alpha-bar at t=1 is 0\.132, 36% of the signal is left; allowed < 7%.*VP\.rescaled\(200\)",
    ):
        VP(steps=200)
    VP.rescaled(200)
    VP(beta_start=1e-4 * 2.7, beta_end=0.02 * 2.7, steps=200)  # the factor that the message names


@pytest.mark.parametrize("steps", [20, 1, 0, -3])
def test_vp_rescaled_refuses_betas_above_one(steps):
    with pytest.raises(ValueError, match=rf"steps is {steps}; allowed >= 21"):
        VP.rescaled(steps)
    assert VP.rescaled(21).beta_end < 1


def test_log_alpha_bar_falls_from_zero():
    knots = log_alpha_bar(1e-4, 0.02, 1000, power=1)
    assert len(knots) == 1001
    assert knots[0] == 0
    assert all(b < a for a, b in pairwise(knots))


def test_paths_are_told_apart_by_type():
    read = TypeAdapter(Annotated[Path, Kind(paths.PATHS)]).validate_python
    assert [read({"type": p.type}) for p in PATHS[:3]] == PATHS[:3]
    with pytest.raises(ValidationError, match="linear"):
        read({"type": "liner"})


def test_a_batch_as_wide_as_the_picture_is_not_broadcast_along_the_width():
    # B = C = H = W: a bare alpha * x0 would run, and scale the columns.
    t = torch.tensor([0.0, 0.3, 0.6, 1.0])
    x0, eps = torch.randn(2, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    mixed = mix(Linear()(t), x0, eps)
    for i in range(4):
        torch.testing.assert_close(mixed[i], (1 - t[i]) * x0[i] + t[i] * eps[i])


def test_a_time_of_another_length_is_refused():
    x = torch.zeros(4, 3, 2, 2)
    assert expand(torch.ones(4), x).shape == (4, 1, 1, 1)
    for wrong in (torch.ones(1), torch.ones(3), torch.tensor(1.0)):
        with pytest.raises(AssertionError, match="one number per sample"):
            mix(Coefs(wrong, wrong, wrong, wrong), x, x)


def test_import_and_construction_are_free_of_torch():
    code = (
        "import sys; from fromnoise.diffusion import loss, target; "
        "from fromnoise.diffusion.path import VP; VP(); loss.Objective(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
