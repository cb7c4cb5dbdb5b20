"""Schedules and samplers beside diffusers' schedulers: one network, one noise, the same times, equal to 1e-4.

The correspondence. diffusers' integer timestep i is our t = (i + 1) / 1000, where alpha-bar is `alphas_cumprod[i]` on
both sides; 1 for alpha-bar is our t = 0, and `alphas_cumprod[0]`, at which DDIM with set_alpha_to_one False and
DPM-Solver with final_sigmas_type "sigma_min" end, is t = 1 / 1000. On the linear path t is their sigma.

What is ours on purpose, and therefore set so on their side:
- no sampler clips x0 (clip_sample and thresholding False);
- we start from sigma(times[0]) noise, they from noise (on Stable Diffusion's path 0.2 % more than x_t has);
- `ddpm` has the variance beta-tilde, their "fixed_small"; of their draws the one of the last step is scaled to 1e-10;
- `dpmpp_2m` is of first order next to infinite log-SNR only: their lower_order_final, for fewer than 15 steps that end
  elsewhere, has no counterpart.

What cannot be matched: DDIM and DDPM with timestep_spacing "linspace", as their steps go to i - 1000 // n, where the
network is not asked next; rescale_betas_zero_snr, as the last beta is 1 and log alpha-bar infinite (`VP.rescaled`, in
spite of the name, keeps the ends while the number of betas changes; `Linear` and `Cosine` do end in zero SNR); and
"squaredcos_cap_v2", as `Cosine` leaves out its offset.
"""

from typing import Literal

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)

from fromnoise.core.types import Cond
from fromnoise.diffusion.path import VP, Linear
from fromnoise.diffusion.predict import predictor
from fromnoise.diffusion.sample import ddim, ddpm, dpmpp_2m, euler, heun, sde
from fromnoise.diffusion.target import TARGETS
from fromnoise.diffusion.times import schedule, shifted

B, C, H, W = 2, 3, 4, 4
DDPM = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}, VP()
SD = (
    {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    VP(beta_start=0.00085, beta_end=0.012, power=2),
)
both_betas = pytest.mark.parametrize(("betas", "path"), [DDPM, SD], ids=["ddpm", "sd"])
both_predictions = pytest.mark.parametrize(("target", "prediction"), [("eps", "epsilon"), ("v", "v_prediction")])
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2


def weights(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[0])) / shape[1] ** 0.5 / 3


def network(x, t):
    """Two fixed random convolutions, and a skip that is all there is at t = 1.

    Without it an x0 divided by alpha = 0.006 is in the hundreds, where float32 has no 1e-4.
    """
    near = (1 - t[:, None, None, None]) ** 2  # (B, 1, 1, 1)
    h = torch.tanh(torch.conv2d(x, weights(8, C, 3, 3), padding=1) + near)  # (B, 8, H, W)
    return (1 - near) * x + near * torch.conv2d(h, weights(C, 8, 3, 3), padding=1)  # (B, C, H, W)


def noises(seed=1):
    """Unit noise like x, as a scheduler draws it from a generator of this seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(B, C, H, W, generator=generator)


def ours(sampler, times, path, target):
    cond = Cond(torch.zeros(B, 1, 1), torch.ones(B, 1, dtype=torch.bool), torch.zeros(B, 1))
    predict = predictor(lambda x, t, cond: network(x, t), cond, path=path, target=TARGETS[target])
    *_, last = sampler(predict, noises(0)(), times, path, noises())
    return last.x


def theirs(scheduler, start, **extra):
    """Their loop; `start` scales the first noise, `extra` goes to each step."""
    x = noises(0)() * start
    for t in scheduler.timesteps:
        ours = t / 1000 if t.is_floating_point() else (t + 1) / 1000
        x = scheduler.step(network(x, ours.expand(B)), t, x, return_dict=False, **extra)[0]
    return x


def times_of(scheduler, end=0.0):
    """Their integer timesteps as our times, down to `end`."""
    return torch.cat([(scheduler.timesteps + 1) / 1000, torch.tensor([end])])


def same(a, b):
    assert 0.1 < b.abs().max() < 100  # 1e-4 of something
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@both_betas
def test_alpha_bar(betas, path):
    # They multiply 1000 factors in float32, which alone is 3e-5.
    coefs = path(torch.arange(1, 1001) / 1000)
    torch.testing.assert_close(coefs.alpha**2, DDPMScheduler(**betas).alphas_cumprod, rtol=5e-5, atol=0)


@both_betas
@both_predictions
@pytest.mark.parametrize(
    ("spacing", "offset", "steps"),
    # With all 1000 steps the difference is 9e-5, and either side's from float64 is as large.
    [("trailing", 0, 50), ("trailing", 0, 200), ("leading", 0, 50), ("leading", 1, 20)],
)
def test_ddpm(betas, path, target, prediction, spacing, offset, steps):
    scheduler = DDPMScheduler(
        **betas,
        prediction_type=prediction,
        variance_type="fixed_small",
        clip_sample=False,
        timestep_spacing=spacing,
        steps_offset=offset,
    )
    scheduler.set_timesteps(steps)
    times = times_of(scheduler)
    start = path(times[:1]).sigma
    same(ours(ddpm, times, path, target), theirs(scheduler, start, generator=torch.Generator().manual_seed(1)))


@both_betas
def test_ddpm_at_uneven_times(betas, path):
    scheduler = DDPMScheduler(**betas, variance_type="fixed_small", clip_sample=False)
    scheduler.set_timesteps(timesteps=[990, 801, 800, 400, 77, 3])
    times = times_of(scheduler)
    start = path(times[:1]).sigma
    same(ours(ddpm, times, path, "eps"), theirs(scheduler, start, generator=torch.Generator().manual_seed(1)))


@both_betas
@both_predictions
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(
    ("spacing", "offset", "to_one"),
    [("trailing", 0, True), ("leading", 0, True), ("leading", 1, False)],
    ids=["trailing", "leading", "as Stable Diffusion ships it"],
)
def test_ddim(betas, path, target, prediction, eta, spacing, offset, to_one):
    scheduler = DDIMScheduler(
        **betas,
        prediction_type=prediction,
        clip_sample=False,
        timestep_spacing=spacing,
        steps_offset=offset,
        set_alpha_to_one=to_one,
    )
    scheduler.set_timesteps(50)
    times = times_of(scheduler, end=0.0 if to_one else 1 / 1000)
    start = path(times[:1]).sigma
    x = theirs(scheduler, start, eta=eta, generator=torch.Generator().manual_seed(1))
    same(ours(ddim(eta), times, path, target), x)


def dpm_solver(
    betas,
    prediction,
    steps,
    final,
    lower_order_final=False,
    spacing: Literal["linspace", "leading", "trailing"] = "leading",
):
    scheduler = DPMSolverMultistepScheduler(
        **betas,
        prediction_type=prediction,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=lower_order_final,
        final_sigmas_type=final,
        timestep_spacing=spacing,
        steps_offset=1 if spacing == "leading" else 0,
    )
    scheduler.set_timesteps(steps)
    return scheduler


@both_betas
@both_predictions
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("steps", [8, 20])
def test_dpmpp_2m(betas, path, target, prediction, spacing, final, steps):
    scheduler = dpm_solver(betas, prediction, steps, final, spacing=spacing)
    times = times_of(scheduler, end=0.0 if final == "zero" else 1 / 1000)
    same(ours(dpmpp_2m, times, path, target), theirs(scheduler, path(times[:1]).sigma))


def test_dpmpp_2m_beside_lower_order_final():
    # The default of theirs changes nothing on the way to sigma 0, nor with 15 steps or more.
    betas, path = SD
    for steps, final, equal in [(8, "zero", True), (20, "sigma_min", True), (8, "sigma_min", False)]:
        scheduler = dpm_solver(betas, "epsilon", steps, final, lower_order_final=True)
        times = times_of(scheduler, end=0.0 if final == "zero" else 1 / 1000)
        difference = ours(dpmpp_2m, times, path, "eps") - theirs(scheduler, path(times[:1]).sigma)
        assert (difference.abs().max() < 1e-4) == equal


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_euler(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    # Sigmas are passed: by themselves they start from a smallest sigma that is shifted already, and shift it again.
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 20, 20).tolist())
    times = schedule(20, shift)
    torch.testing.assert_close(times, scheduler.sigmas, rtol=1e-6, atol=0)
    same(ours(euler, times, Linear(), "flow"), theirs(scheduler, 1.0))
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 20, 20).tolist())
    same(ours(sde(0.0), times, Linear(), "flow"), theirs(scheduler, 1.0))


def test_flow_sde_that_draws_all_noise_anew():
    scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 20, 20).tolist())
    with torch.random.fork_rng():
        torch.manual_seed(1)  # they draw from torch's own generator
        x = theirs(scheduler, 1.0)
    same(ours(sde(float("inf")), schedule(20), Linear(), "flow"), x)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_heun(shift):
    # It takes no sigmas: at shift 3 its own, of which the smallest is shifted twice, are read back.
    scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(20)
    times = scheduler.sigmas.unique(sorted=True).flip(0)  # every inner one is there twice
    assert len(times) == 21
    same(ours(heun, times, Linear(), "flow"), theirs(scheduler, 1.0))


@pytest.mark.parametrize("mu", [0.5, 1.15])
def test_shift_by_resolution_is_our_shift_by_its_exponential(mu):
    # As FLUX, SD 3.5 and Qwen-Image sample: shift = exp(mu).
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    sigmas = np.linspace(1, 1 / 28, 28)
    scheduler.set_timesteps(sigmas=sigmas.tolist(), mu=mu)
    torch.testing.assert_close(schedule(28, float(np.exp(mu))), scheduler.sigmas, rtol=1e-6, atol=0)
    assert shifted(0.25, float(np.exp(mu))) == pytest.approx(float(scheduler.time_shift(mu, 1.0, torch.tensor(0.25))))
