"""One token for everything."""

import torch

from fromnoise.conditioning.config import NoConditionConfig


def test_every_picture_gets_the_null_token():
    conditioner = NoConditionConfig(width=8).build([])
    cond = conditioner(conditioner.encode(["a cat", ""], torch.zeros(2, dtype=torch.int64)))
    null = conditioner.null(2)
    assert cond.tokens.shape == (2, 1, 8) and bool(cond.mask.all())
    for name in ("tokens", "mask", "vector"):
        assert torch.equal(getattr(cond, name), getattr(null, name))
    (cond.tokens.sum() + cond.vector.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in conditioner.parameters())


def test_a_prompt_that_is_not_read_is_said_so():
    conditioner = NoConditionConfig(width=8).build([])
    assert conditioner.notice(["", ""]) == ""
    assert "reads no prompts" in conditioner.notice(["a cat", ""])
    assert conditioner.cut(["a cat"]) == 0 and conditioner.labels(["a cat", "7"]) == [0, 0]


def test_restore():
    conditioner = NoConditionConfig(width=8).build([])
    again = NoConditionConfig(width=8).restore(conditioner.state)
    again.load_state_dict(conditioner.state_dict())
    assert torch.equal(again.null(1).vector, conditioner.null(1).vector)
