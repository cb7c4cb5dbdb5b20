"""Who may be compared with whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fromnoise.data.config import FolderConfig, MNISTConfig, ShapesConfig
from fromnoise.evaluation.comparison.match import Contender, Entry, contenders, matched, refuse_other_data
from fromnoise.training.run import Run


@pytest.fixture
def entry(tiny: Callable[..., Run]) -> Callable[..., Entry]:
    def make(name: str, directory: Path | None = None, **training: Any) -> Entry:
        return Entry(name, tiny(name, **training), directory)

    return make


def finished(root: Path, run: Run, steps: int = 3) -> Path:
    """A directory that looks like that of a run after so many steps."""
    (root / "checkpoints" / f"step-{steps:08}").mkdir(parents=True)
    return root


class TestSides:
    def test_a_recipe_has_a_run_for_each_seed_and_its_cost(self, entry, printed):
        sides = contenders([entry("flow"), entry("noise")], 3, MNISTConfig(path=printed).build(0))
        assert [side.name for side in sides] == ["flow", "noise"]
        assert all(side.runs == {0: None, 1: None, 2: None} for side in sides)
        assert all(side.run.model.size == 28 and side.run.model.channels == 1 for side in sides)
        assert sides[0].parameters == sides[1].parameters and sides[0].flops == sides[1].flops > 0
        assert sides[0].pictures == 24 and sides[0].compute == 24 * sides[0].training_flops

    def test_finished_runs_that_differ_in_the_seed_are_one(self, entry, tiny, printed, tmp_path):
        entries = [entry("flow")]
        for seed in (4, 7):
            place = finished(tmp_path / f"noise-{seed}", tiny("noise"))
            entries.append(entry("noise", place, seed=seed))
        sides = contenders(entries, 1, MNISTConfig(path=printed).build(0))
        assert [sorted(side.runs) for side in sides] == [[0], [4, 7]]
        assert sides[1].runs[7] == tmp_path / "noise-7"

    def test_what_decides_no_weights_makes_no_other_recipe(self, entry, printed, tmp_path):
        runs = [entry("noise", finished(tmp_path / str(seed), entry("noise").run), seed=seed, log_every=log, keep=log)
                for seed, log in ((4, 1), (7, 3))]  # fmt: skip
        runs[1] = runs[1]._replace(run=runs[1].run.model_copy(update={"recipe": "mine"}))
        sides = contenders([entry("flow"), *runs], 1, MNISTConfig(path=printed).build(0))
        assert [sorted(side.runs) for side in sides] == [[0], [4, 7]]
        other = entry("noise", finished(tmp_path / "other", entry("noise").run), seed=9, warmup=3)
        assert len(contenders([runs[0], other], 1, MNISTConfig(path=printed).build(0))) == 2

    def test_the_same_name_twice_is_told_apart(self, entry, printed):
        entries = [entry("flow"), entry("flow", steps=5)]
        assert [side.name for side in contenders(entries, 1, MNISTConfig(path=printed).build(0))] == ["flow", "flow-2"]

    def test_what_cannot_be_is_refused(self, entry, printed, tmp_path):
        data, one = MNISTConfig(path=printed).build(0), entry("flow")
        with pytest.raises(ValueError, match=r"^1 recipe is given; allowed: two or more"):
            contenders([one], 1, data)
        half = finished(tmp_path / "half", one.run, steps=2)
        with pytest.raises(ValueError, match=r"half is not finished: step 2 of 3; finish it first: fromnoise train"):
            contenders([one, entry("noise", half)], 1, data)
        done = finished(tmp_path / "done", one.run)
        with pytest.raises(ValueError, match=r"is given twice, or is the same run"):
            contenders([one, entry("noise", done), entry("noise", done)], 1, data)
        other = finished(tmp_path / "other", one.run)
        with pytest.raises(ValueError, match=r"all runs given are of noise, with other seeds"):
            contenders([entry("noise", done), entry("noise", other, seed=1)], 1, data)
        with pytest.raises(ValueError, match=r"training.batch of noise is 0"):
            contenders([one, entry("noise", batch=0)], 1, data)


def test_other_data_are_refused_by_what_differs(entry, printed):
    one = entry("flow")
    larger = one.run.model_copy(update={"data": MNISTConfig(path=printed, size=32)})
    with pytest.raises(
        ValueError, match=r"cannot be matched: data.size is 28 in flow, 32 in large; compare recipes on"
    ):
        refuse_other_data([one, Entry("large", larger, None)])
    shapes = one.run.model_copy(update={"data": ShapesConfig()})
    with pytest.raises(ValueError, match=r"data.type is 'mnist' in flow, 'shapes' in shapes"):
        refuse_other_data([one, Entry("shapes", shapes, None)])
    refuse_other_data([one, one])


def test_a_recipe_may_be_compared_with_a_run_whose_pictures_are_recorded(entry):
    one, other, recipe = (
        Entry(str(name), entry("flow").run.model_copy(update={"data": FolderConfig(path=Path("a"), sha256=name)}), None)
        for name in ("b" * 64, "c" * 64, None)
    )
    refuse_other_data([one, recipe, one])
    with pytest.raises(ValueError, match=r"cannot be matched: data.sha256 is 'bb"):
        refuse_other_data([one, other])


class TestMatched:
    @pytest.fixture
    def sides(self, tiny: Callable[..., Run]) -> list[Contender]:
        """The second needs three times the compute of the first for a picture."""
        runs = {0: None}
        return [
            Contender("a", tiny("flow", steps=60), dict(runs), 1000, 10, 30),
            Contender("b", tiny("noise", steps=60), dict(runs), 1015, 30, 90),
        ]

    def test_parameters_within_two_per_cent(self, sides):
        same, told = matched(sides, "parameters", None, print)
        assert same == sides and "Equal parameters" in told
        fatter = [sides[0], sides[1]._replace(parameters=1021)]
        with pytest.raises(
            ValueError, match=r"^recipes cannot be matched: parameters differ: a 1,000, b 1,021; allowed"
        ):
            matched(fatter, "parameters", None, print)
        assert matched(fatter, "none", None, print)[0] == fatter

    def test_parameters_with_other_pictures_trained_on(self, sides, tiny):
        longer = [sides[0], sides[1]._replace(run=tiny("noise", steps=90))]
        with pytest.raises(ValueError, match=r"pictures trained on differ: a 480, b 720; .* --training-steps"):
            matched(longer, "parameters", None, print)
        same, _ = matched(longer, "parameters", 70, print)
        assert [side.run.training.steps for side in same] == [70, 70]

    def test_compute_gives_each_its_steps_and_tells_so(self, sides):
        told: list[str] = []
        same, _ = matched(sides, "compute", None, told.append)
        assert [side.run.training.steps for side in same] == [60, 20]
        assert same[0].compute == same[1].compute
        assert told == ["b: 20 steps in place of 60, for the FLOPs of a"]
        more, _ = matched(sides, "compute", 300, told.append)
        assert [side.run.training.steps for side in more] == [300, 100]

    def test_compute_that_cannot_be_had(self, sides, tmp_path):
        with pytest.raises(ValueError, match=r"training FLOPs differ: a 240, b 720; .* more --training-steps"):
            matched(sides, "compute", 1, print)
        fixed = [sides[0], sides[1]._replace(runs={0: tmp_path})]
        with pytest.raises(ValueError, match=r"training FLOPs differ"):
            matched([fixed[1], fixed[1]._replace(name="c", training_flops=30)], "compute", None, print)
