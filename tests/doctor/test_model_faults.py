"""Faults of a model, planted one by one in the package's own code: each is found, with its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fromnoise.conditioning.config import LabelConfig, TextConfig
from fromnoise.conditioning.label import LabelConditioner
from fromnoise.conditioning.text import TextConditioner
from fromnoise.core.types import Cond
from fromnoise.diffusion import sample as samplers
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP, Coefs, Cosine
from fromnoise.diffusion.predict import guided, predictor
from fromnoise.diffusion.target import TARGETS
from fromnoise.doctor import blocks, captions, gradients, optimisation, positions, sampling, schedule, time
from fromnoise.models import mmdit
from fromnoise.models.config import CNNConfig, DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.models.mmdit import MMDiT
from fromnoise.nn.attention import bias_of
from fromnoise.nn.embed import time_features
from fromnoise.pipeline import pipeline
from fromnoise.pipeline.config import Sampling

Examined = Callable[..., Any]
Judge = Callable[..., None]


def test_time_between_0_and_1(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any) -> None:
    subject = examined()
    is_fine(time.rank(subject))
    monkeypatch.setattr(mmdit, "time_features", lambda t, width: time_features(t / 1000, width))
    is_wrong(time.rank(subject), "effective rank 1.05 of 256")


@pytest.mark.parametrize(
    "backbone",
    [
        DiTConfig(patch=8, width=16, depth=1, head_width=8),
        UNetConfig(width=8, multipliers=(1, 2), layers=1, attention=(1,), heads=2, groups=4),
        CNNConfig(width=16),
    ],
    ids=lambda backbone: backbone.type,
)
def test_the_time_of_every_backbone_is_seen(examined: Examined, is_fine: Judge, backbone: Any) -> None:
    subject = examined(backbone=backbone)
    is_fine(time.rank(subject))
    is_fine(time.same_time(subject))


def test_time_in_bfloat16_in_training_alone(
    examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any
) -> None:
    subject, loss = examined(), Objective.loss

    def cast(self: Objective, model: Any, x0: Any, cond: Any, t: Any, eps: Any, path: Any) -> Any:
        return loss(self, lambda x, t, cond: model(x, t.bfloat16(), cond), x0, cond, t, eps, path)

    is_fine(time.same_time(subject))
    monkeypatch.setattr(Objective, "loss", cast)
    finding = time.same_time(subject)
    is_wrong(finding, "differ by")
    assert 10 < float(finding.number.split()[-1].rstrip("%")) < 40
    assert int(time.rank(subject).number.split(" of 1000")[0].split()[-1]) < 600


def test_theta_of_a_larger_grid(examined: Examined, is_wrong: Judge, is_fine: Judge) -> None:
    backbone = MMDiTConfig(patch=2, width=64, depth=1, head_width=64, pooled=True)
    is_wrong(positions.rotary(examined(backbone=backbone)), "5 of 16", "over 16 patches", "theta 10000")
    is_fine(positions.rotary(examined(backbone=backbone.model_copy(update={"rope_theta": 100.0}))))
    fixed = positions.rotary(examined(backbone=backbone.model_copy(update={"pooled": False})))
    is_fine(fixed)  # the weights fit diffusers' class, whose theta it is
    assert "5 of 16" in fixed.number and "diffusers" in fixed.number


def test_padding_attended(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any) -> None:
    subject = examined()
    is_fine(blocks.padding(subject))
    monkeypatch.setattr(mmdit, "bias_of", lambda mask: bias_of(torch.ones_like(mask)))
    is_wrong(blocks.padding(subject), "changes the backbone's answer by")


def test_padding_attended_by_the_text_encoder(examined: Examined, is_wrong: Judge, monkeypatch: Any) -> None:
    subject = examined()
    monkeypatch.setattr("fromnoise.conditioning.text.bias_of", lambda mask: bias_of(torch.ones_like(mask)))
    finding = blocks.padding(subject)
    is_wrong(finding)
    assert float(finding.number.split("text encoder's by ")[1].split()[0]) > 1e-3


def test_captions_cut(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any) -> None:
    is_fine(captions.cut(examined()))
    subject = examined(conditioner=TextConfig(width=16, depth=1, heads=2, vocabulary=400, length=4))
    finding = captions.cut(subject)
    is_wrong(finding, "% of 2,000 are longer")
    assert float(finding.number.partition("%")[0]) > 50
    monkeypatch.setattr(TextConditioner, "cut", lambda self, captions: 0.0)
    is_wrong(captions.cut(subject), "16 of the 16 longest", "nobody says so")


def test_parameters_that_nothing_reads(examined: Examined, is_wrong: Judge, is_fine: Judge) -> None:
    subject = examined()
    is_fine(gradients.without_gradient(subject))
    subject = examined()
    subject.model.backbone.transformer_blocks[-1].txt_mlp = nn.Linear(32, 32)
    is_wrong(gradients.without_gradient(subject), "1,056 (backbone.transformer_blocks.1.txt_mlp.weight, ...)")


def test_queries_to_a_single_token_are_told(examined: Examined, is_fine: Judge) -> None:
    backbone = UNetConfig(width=8, multipliers=(1, 2), layers=1, attention=(1,), heads=2, groups=4)
    finding = gradients.without_gradient(examined(backbone=backbone, conditioner=LabelConfig(classes=6, width=8)))
    is_fine(finding)
    assert "choose among the tokens of a prompt, which has one here" in finding.number


def test_guidance_0_that_reads_the_prompt(
    examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any
) -> None:
    subject = examined()
    is_fine(sampling.guided_mean(subject))

    def faulty(model: Any, cond: Cond, null: Cond, scale: float, interval: Any, **how: Any) -> Any:
        return guided(model, cond, null, scale or 1.0, interval, **how)

    monkeypatch.setattr(pipeline, "guided", faulty)
    is_wrong(sampling.guided_mean(subject), "at guidance 0 100.0% of the prompt's effect is left")


def test_guidance_that_moves_one_of_two_states(examined: Examined, is_wrong: Judge, monkeypatch: Any) -> None:
    def faulty(model: Any, cond: Cond, null: Cond, scale: float, interval: Any, *, path: Any, target: Any) -> Any:
        said, unsaid = (predictor(model, one, path=path, target=target) for one in (cond, null))
        start: list[Any] = []

        def predict(x: Any, t: Any) -> Any:
            start.append(x)
            a, b = said(x, t), unsaid(start[0], t)  # the other state stays where it began
            return type(a)(*(y + scale * (x - y) for x, y in zip(a, b, strict=True)))

        return predict

    subject = examined()
    monkeypatch.setattr(pipeline, "guided", faulty)
    finding = sampling.guided_mean(subject)
    is_wrong(finding, "where 3.00 is right")
    assert abs(float(finding.number.split("draws mean ")[1].split()[0]) - 3) > 1


def test_modulation_that_does_not_start_at_zero(
    examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any
) -> None:
    is_fine(blocks.fresh_blocks(examined()))
    start = MMDiT.init_weights

    def careless(self: MMDiT) -> None:
        start(self)
        for name, p in self.named_parameters():
            if "_mod." in name:
                nn.init.normal_(p, std=0.5)

    monkeypatch.setattr(MMDiT, "init_weights", careless)
    is_wrong(blocks.fresh_blocks(examined()), "2 transformer blocks change their input by")


def test_blocks_without_gates(examined: Examined, is_wrong: Judge, monkeypatch: Any) -> None:
    def forward(self: Any, image: Any, text: Any, time: Any, bias: Any, turns: Any) -> Any:
        from_image, from_text = self.attn(image, text, bias, turns)
        return image + from_image + self.img_mlp(image), text + from_text + self.txt_mlp(text)

    monkeypatch.setattr(mmdit.Block, "forward", forward)
    is_wrong(blocks.fresh_blocks(examined()))


@pytest.mark.parametrize("target", ["x0", "flow"])
def test_the_wrong_sign(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any, target: str) -> None:
    subject = examined(objective=Objective(target=target, measure=target))
    is_fine(sampling.to_noise_and_back(subject))
    slope = samplers._slope
    monkeypatch.setattr(samplers, "_slope", lambda *args: -slope(*args))
    is_wrong(sampling.to_noise_and_back(subject), "euler draws mean")


def test_training_asks_for_the_opposite(examined: Examined, is_wrong: Judge, monkeypatch: Any) -> None:
    def opposite(coefs: Coefs) -> Any:
        return -coefs.d_alpha, -coefs.d_sigma

    subject = examined()
    monkeypatch.setattr("fromnoise.diffusion.loss.TARGETS", TARGETS | {"flow": opposite})
    finding = sampling.to_noise_and_back(subject)
    is_wrong(finding)
    assert float(finding.number.split("comes back to ")[1].partition(";")[0]) > 0.5


def test_a_ddim_that_does_not_converge(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any) -> None:
    how = {"path": VP(), "objective": Objective(target="eps", measure="eps")}
    subject = examined(sampling=Sampling(sampler="ddim", steps=10, guidance=3.0), **how)
    is_fine(sampling.to_noise_and_back(subject))

    def alpha_bar(predict: Any, noise: Any, times: Any, path: Any, draw: Any) -> Any:
        alpha, sigma, _, _ = path(times)
        x = sigma[0] * noise
        for i, t in enumerate(times[:-1]):
            p = predict(x, t.expand(len(x)))
            x = alpha[i + 1] ** 2 * p.x0 + (1 - alpha[i + 1] ** 2) * p.eps  # alpha-bar where amplitudes belong
            yield samplers.Step(x, p.x0)

    monkeypatch.setitem(samplers.SAMPLERS, "ddim", alpha_bar)
    is_wrong(sampling.to_noise_and_back(subject), "ddim draws mean")


def test_betas_cut_to_200_steps(examined: Examined, is_wrong: Judge, is_fine: Judge) -> None:
    is_fine(schedule.terminal_signal(examined(path=VP())))
    cut = VP.model_construct(type="vp", beta_start=1e-4, beta_end=0.02, steps=200, power=1)
    subject = examined(path=cut, objective=Objective(target="v", measure="v"))
    is_wrong(schedule.terminal_signal(subject), "36.", "% of the picture's amplitude")


def test_eps_from_pure_noise(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any) -> None:
    subject = examined(path=Cosine(), objective=Objective(target="eps", measure="eps"))
    is_fine(schedule.determinants(subject))
    monkeypatch.setattr(pipeline, "largest_start", lambda path, target: 0.999)
    monkeypatch.setattr(pipeline, "check", lambda *args: None)
    is_wrong(schedule.determinants(subject), "637-fold", "t = 0.999")


def test_a_label_embedder_that_never_learns(
    examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any
) -> None:
    how = {"conditioner": LabelConfig(classes=6, width=16)}
    subject = examined(**how)
    is_fine(gradients.without_gradient(subject))
    is_fine(gradients.optimized(subject))
    monkeypatch.setattr(
        LabelConditioner, "forward", lambda self, features: Cond.of(self.table.detach()[features["labels"]])
    )
    monkeypatch.setattr(LabelConditioner, "null", lambda self, n: Cond.of(self.table[-1].detach().expand(n, -1)))
    subject = examined(**how)
    is_wrong(gradients.without_gradient(subject), "112 (conditioner.table)")
    is_wrong(gradients.optimized(subject), "nothing of the conditioner")


def test_a_condition_that_is_never_heard(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any) -> None:
    is_fine(optimisation.one_batch(examined()))
    forward = MMDiT.forward

    def deaf(self: MMDiT, x: Any, t: Any, cond: Cond) -> Any:
        return forward(self, x, t, Cond(0 * cond.tokens + 1, torch.ones_like(cond.mask), 0 * cond.vector))

    monkeypatch.setattr(MMDiT, "forward", deaf)
    monkeypatch.setattr(optimisation, "STEPS", 60)
    is_wrong(optimisation.one_batch(examined()), "100% of what 4 prompts make of the same noise", "after 60 steps")


def test_a_gradient_that_is_cut_off(examined: Examined, is_wrong: Judge, monkeypatch: Any) -> None:
    forward = mmdit.LastBlock.forward
    monkeypatch.setattr(mmdit.LastBlock, "forward", lambda *args: forward(*args).detach())
    monkeypatch.setattr(optimisation, "STEPS", 60)
    is_wrong(optimisation.one_batch(examined()))


def test_logits_that_grew(examined: Examined, is_wrong: Judge, is_fine: Judge) -> None:
    subject = examined()
    is_fine(blocks.logits(subject))
    with torch.no_grad():
        for name, p in subject.model.named_parameters():
            if "norm_q" in name or "norm_added_q" in name:
                p.mul_(1000)
    is_wrong(blocks.logits(subject), "of fresh weights")


def test_a_device_in_the_code(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any) -> None:
    subject = examined()
    is_fine(positions.devices(subject))
    monkeypatch.setattr(mmdit, "time_features", lambda t, width: time_features(torch.zeros(len(t)), width))
    is_wrong(positions.devices(subject), "device")


def test_dropout_that_is_never_read(examined: Examined, is_wrong: Judge, is_fine: Judge, monkeypatch: Any) -> None:
    from fromnoise.training import drawing

    subject, draw = examined(), drawing.draw
    is_fine(sampling.null_condition(subject))

    def all_kept(*args: Any) -> Any:
        sample = draw(*args)
        return sample._replace(keep=torch.ones_like(sample.keep))

    monkeypatch.setattr(drawing, "draw", all_kept)
    is_wrong(sampling.null_condition(subject), "0.0% of prompts dropped in training where 10.0% are asked for")


def test_another_null_when_drawing(examined: Examined, is_wrong: Judge, monkeypatch: Any) -> None:
    subject = examined()

    def zeros(model: Any, cond: Cond, null: Cond, *args: Any, **how: Any) -> Any:
        return guided(model, cond, Cond(0 * null.tokens, null.mask, 0 * null.vector), *args, **how)

    monkeypatch.setattr(pipeline, "guided", zeros)
    finding = sampling.null_condition(subject)
    is_wrong(finding, "differs from that by")


def test_alpha_bar_for_alpha_in_a_path(examined: Examined, is_wrong: Judge, monkeypatch: Any) -> None:
    call, solve = VP.__call__, pipeline.guided
    assert solve is guided
    subject = examined(path=VP(), objective=Objective(target="eps", measure="eps"))

    def squared(path: Any) -> Any:
        return lambda t: (lambda c: c._replace(alpha=c.alpha**2))(call(path, t))

    def faulty(*args: Any, path: Any, target: Any) -> Any:
        return guided(*args, path=squared(path), target=target)

    monkeypatch.setattr(pipeline, "guided", faulty)
    is_wrong(sampling.to_noise_and_back(subject))
