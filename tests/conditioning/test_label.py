"""A token per class, and one for no class."""

import pytest
import torch

from fromnoise.conditioning.config import LabelConfig
from fromnoise.conditioning.label import LabelConditioner


def make(classes: int = 4) -> LabelConditioner:
    torch.manual_seed(0)
    return LabelConfig(classes=classes, width=8).build([])


def test_labels_and_null_have_tokens_of_their_own():
    conditioner = make()
    cond = conditioner(conditioner.encode([""] * 4, torch.arange(4)))
    every = torch.cat([cond.vector, conditioner.null(1).vector])
    assert len(torch.unique(every, dim=0)) == 5
    assert torch.equal(cond.tokens[:, 0], cond.vector)
    assert torch.equal(conditioner.null(3).vector, every[4:].expand(3, -1))


def test_gradient_reaches_the_classes_seen_and_the_null_by_dropout():
    conditioner = make()
    cond = conditioner(conditioner.encode([""] * 3, torch.tensor([0, 2, 3])))
    cond = cond.where(torch.tensor([True, True, False]), conditioner.null(3))
    (cond.tokens.sum() + cond.vector.sum()).backward()
    assert conditioner.table.grad is not None
    assert (conditioner.table.grad.abs().sum(1) > 0).tolist() == [True, False, True, False, True]


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_no_class_is_refused(label):
    with pytest.raises(ValueError, match=rf"^label {label} is out of range: the model knows classes 0 to 3$"):
        make().encode(["", ""], torch.tensor([0, label]))


def test_prompts_are_said_to_be_unread():
    assert "class labels 0 to 3" in make().notice(["a cat"])
    assert make().notice(["", "3"]) == "" and make().cut([""]) == 0


def test_prompts_ask_for_classes_by_number():
    assert make().labels(["3", " 0 ", "01"]) == [3, 0, 1]


@pytest.mark.parametrize("prompt", ["4", "-1", "1.5", "", "one", "²"])
def test_a_prompt_that_is_no_class_is_refused(prompt):
    with pytest.raises(ValueError) as refused:
        make().labels(["1", prompt])
    assert str(refused.value) == f"prompt {prompt!r} is no class of this model; allowed: a number, 0 to 3"


def test_prompts_ask_for_classes_by_name():
    named = LabelConfig(classes=3, width=8, names=("Dog", "2", "cat")).build([])
    assert named.labels(["cat", " Dog ", "2", "0"]) == [2, 0, 2, 0]  # a number is one, whatever the names are
    assert named.notice(["", "cat", "1"]) == "" != named.notice(["a cat"])
    told = "prompt 'dog' is no class of this model; allowed: a number, 0 to 2, Dog, 2, cat; nearest: Dog"
    with pytest.raises(ValueError, match=f"^{told}$"):
        named.labels(["dog"])


def test_restore():
    again = LabelConfig(classes=4, width=8).restore(make().state)
    again.load_state_dict(make().state_dict())
    assert torch.equal(again.table, make().table)
