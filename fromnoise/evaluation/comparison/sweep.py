"""Which sampler, how many steps and how much guidance a finished run draws best with: every setting is judged.

All settings draw the same prompts from the same noise. Each is kept in a file of its own, so that what was stopped goes
on; the choice is written into the run, for `load`, `sample` and `evaluate` to draw by.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from fromnoise.core.config import write_yaml
from fromnoise.core.device import pick
from fromnoise.core.files import content_hash, write_text
from fromnoise.core.types import Data
from fromnoise.diffusion.sample import WITH_ETA
from fromnoise.evaluation.comparison.asked import SweepAsked, times_between
from fromnoise.evaluation.comparison.compare import machine, without_pictures
from fromnoise.evaluation.comparison.match import refuse_unfinished
from fromnoise.evaluation.comparison.measure import Watch, kept, strip
from fromnoise.evaluation.comparison.sweep_page import settings_page
from fromnoise.evaluation.judges.judge import JUDGED, PROMPTS, Judge, judge_of, kind_of, prompts_of
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.load import load
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.pipeline.place import SAMPLING, weights
from fromnoise.training.run import Run, VAERun, read_run

VERSION = 1  # of what is kept; what another version kept is measured anew
AS_GOOD = 0.05  # by which a distance may be above the least and still count as good: no error of it is known

Tree = dict[str, Any]


def sweep(directory: Path, asked: SweepAsked, say: Callable[[str], None], watch: Watch) -> Path:
    """Judge every setting on the run in `directory` and write sweep.html, sweep.json and sampling.yaml into it.

    Raises:
        ValueError: one line, for what is no finished run, or one whose data have no judge.
    """
    run = finished(directory)
    kind = kind_of(run.data)
    if kind not in JUDGED:
        raise ValueError(f"there is no judge of {kind} data to sweep by; allowed: runs on {', '.join(JUDGED)} data")
    device, file = pick(asked.device), weights(directory)
    data = run.data.build(0)
    judge = judge_of(kind, data)
    pipeline = load(file, device=str(device))
    usual = pipeline.config.sampling
    settings = grid(asked, usual, prompted=run.model.conditioner.type != "none")
    say(f"{len(settings)} settings, {asked.samples} pictures each")
    key = {"version": VERSION, "checkpoint": content_hash(file), "device": str(device), "judge": judge.identity}
    key |= {"samples": asked.samples, "seed": asked.seed}

    points, by = [], "accuracy"
    for i, sampling in enumerate(settings, start=1):

        def work(sampling: Sampling = sampling, i: int = i) -> Tree:
            with watch(f"{i} of {len(settings)}: {sampling.words()}") as progress:
                return judged(pipeline, sampling, data, judge, asked, progress)

        place = directory / "sweep" / f"{'-'.join(sampling.words().replace(',', '').split())}.json"
        told = sampling.model_dump(mode="json")
        points.append(kept(place, key | {"sampling": told}, work) | told)
        by = by_of(asked, points[0])  # what cannot be told is refused before the second is judged
    results = {
        "run": directory.resolve().name,
        "checkpoint": key["checkpoint"],
        "judge": {"name": judge.name, "about": judge.about, "identity": judge.identity, "chance": judge.chance},
        "asked": asked.model_dump(mode="json"),
        "machine": machine(device),
        "prompts": list(prompts_of(data)[0]),
        **chosen(points, by, usual, judge.chance),
    }
    write_text(directory / "sweep.html", settings_page(results))
    write_text(directory / "sweep.json", json.dumps(without_pictures(results), indent=1) + "\n")
    if not results["learned"]:
        chance = f"by chance ({judge.chance:.0%})"
        say(f"no setting is right more often than {chance}: none is chosen, the run draws as before")
        return directory / "sweep.html"
    best = Sampling.model_validate({name: points[results["chosen"]][name] for name in Sampling.model_fields})
    write_yaml(best, directory / SAMPLING)
    say(f"{directory / SAMPLING} now says how this run draws: {best.words()}; flags override it, removing it undoes it")
    return directory / "sweep.html"


def finished(directory: Path) -> Run:
    """The run in `directory`; ValueError in one line where it is none that draws, or not finished."""
    if not (directory / "run.yaml").is_file():
        raise ValueError(f"{directory} holds no run.yaml: it is no run; allowed: the directory of a finished run")
    run = read_run(directory / "run.yaml")
    if isinstance(run, VAERun):
        raise ValueError(f"{directory} holds a VAE, which draws nothing; allowed: the run of a model that draws")
    refuse_unfinished(run, directory)
    return run


def grid(asked: SweepAsked, usual: Sampling, prompted: bool) -> list[Sampling]:
    """The settings, the usual one first; those that could not differ are one. Shift is the run's own, and so is eta
    where the sampler reads it. A model that is told nothing is not guided."""
    samplers = asked.samplers or tuple(dict.fromkeys((usual.sampler, "dpmpp_2m")))
    intervals = [times_between(text) for text in asked.intervals] or [usual.interval]
    found = [usual]
    for sampler, steps, guidance, interval in product(
        samplers, asked.steps, asked.guidances if prompted else (usual.guidance,), intervals
    ):
        eta = usual.eta if sampler in WITH_ETA else 0.0
        values = {"sampler": sampler, "steps": steps, "guidance": guidance, "interval": interval, "eta": eta}
        setting = usual.model_copy(update=values)
        if guidance in (0, 1):  # the same at all times
            setting = setting.model_copy(update={"interval": (0.0, 1.0)})
        if setting not in found:
            found.append(setting)
    return found


def judged(
    pipeline: Pipeline,
    sampling: Sampling,
    data: Data,
    judge: Judge,
    asked: SweepAsked,
    progress: Callable[[int, int], None],
) -> Tree:
    """What the judge says at one setting, ten pictures, and how often the network is asked for each."""
    pipeline.draw_as(sampling)
    with counting(pipeline) as rows:
        png = strip(pipeline, data, asked.seed, None, None, rows=1)
    found = judge.measure(pipeline, asked.samples, asked.seed, None, None, progress)
    return {**found, "forwards": sum(rows) / PROMPTS, "png": png}


@contextmanager
def counting(pipeline: Pipeline) -> Iterator[list[int]]:
    """Inside, every forward of the backbone appends how many samples it was of."""
    rows: list[int] = []
    hook = pipeline.backbone.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    try:
        yield rows
    finally:
        hook.remove()


def by_of(asked: SweepAsked, point: Tree) -> str:
    """What settings are compared by; ValueError in one line where the judge cannot tell it."""
    by = asked.by if asked.by != "auto" else ("accuracy" if point["frechet"] is None else "frechet")
    if point[by] is None:
        other = "frechet" if by == "accuracy" else "accuracy"
        raise ValueError(f"--by {by}: the judge of this run cannot tell it; allowed: {other}")
    return by


def chosen(points: Sequence[Tree], by: str, usual: Sampling, chance: float) -> Tree:
    """The points with their times, those that no other one beats, the best, and the one that is taken.

    seconds of a picture are forwards times the median time of one forward over all settings, so that what else ran on
    the machine does not order them. front: by index, those of which none is both faster and as good. chosen: the
    fastest that is as good as the best but for chance, the rule of one standard error (Breiman et al. 1984, 3.4.3); the
    usual one, where no setting is right more often than by `chance` (`learned`).
    """
    forward = statistics.median(1 / point["images_per_second"] / point["forwards"] for point in points)
    timed = [point | {"seconds": forward * point["forwards"]} for point in points]
    loss = [-point[by] if by == "accuracy" else point[by] for point in timed]
    order = sorted(range(len(timed)), key=lambda i: (timed[i]["seconds"], loss[i]))
    front: list[int] = []
    for i in order:
        if not front or loss[i] < loss[front[-1]]:
            front.append(i)
    best = min(order, key=lambda i: loss[i])
    allowed = loss[best] + tolerance(timed[best], by)
    learned = points[0]["accuracy"] is None or beyond_chance(points, chance)
    taken = next(i for i in order if loss[i] <= allowed) if learned else 0
    return {
        "by": by,
        "learned": learned,
        "points": timed,
        "usual": 0,
        "usual_sampling": usual.model_dump(mode="json"),
        "front": front,
        "best": best,
        "chosen": taken,
        "seconds_a_forward": forward,
    }


def beyond_chance(points: Sequence[Tree], chance: float) -> bool:
    """Whether some point is right more often than a model that is right by `chance` would be at any of so many, in
    39 of 40 sweeps or more: 2.5 % over the number of points (Bonferroni) is above the binomial tail."""
    from scipy.stats import binom

    def luck(point: Tree) -> float:
        right = round(point["accuracy"] * point["samples"])
        return float(binom.sf(right - 1, point["samples"], chance))  # of as many or more

    return min(map(luck, points)) < 0.025 / len(points)


def tolerance(best: Tree, by: str) -> float:
    """What a setting may be worse by than the best, and still be as good."""
    if by == "frechet":
        return AS_GOOD * best["frechet"]
    low, high = best["accuracy_interval"]
    return (high - low) / 2 / 1.96
