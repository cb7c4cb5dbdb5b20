"""Whether what a training keeps is whole, safe and enough to go on from; and whether chance is seeded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fromnoise.core.files import load_metadata
from fromnoise.core.line import quiet
from fromnoise.doctor.finding import Finding, judged
from fromnoise.doctor.subject import Subject
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.pipeline.place import list_checkpoints
from fromnoise.training import checkpoint, loop
from fromnoise.training.checkpoint import State

PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of torch's archives of pickles, and of bare pickles."""
CONFIGS = ("config", "autoencoder")  # under which a file of weights keeps its config


class Interrupted:
    """A model that is killed as it is saved."""

    def save(self, path: Path, metadata: dict[str, str]) -> None:
        """Half a file, and no more."""
        path.write_bytes(b"half of a fi")
        raise OSError(28, "No space left on device")


def round_trip(subject: Subject) -> Finding:
    """The fresh state saved, as compilation would see it, and taken up again; then one that is cut off half way."""
    assert subject.state is not None and subject.trainee is not None and subject.run is not None
    state, lost, faults, names = subject.state, 0, list[str](), set(subject.model.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "checkpoints"
        try:
            with names_compiled(), state.model.compiled(True):
                if renamed := sorted(set(state.model.state_dict()) - names):
                    faults.append(f"compilation changes {len(renamed)} names ({renamed[0]}, ...)")
                saved = checkpoint.save(root, state, keep=2)
            again = loop.start(subject.trainee, root, quiet)
            lost = different(state, again)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            faults.append(" ".join(str(error).replace(folder, "").split())[:300])
            saved = next(iter(list_checkpoints(root)), root)
        faults += [f"{path.name} is pickled" for path in pickled(saved)]
        faults += [f"{path.name} has no config" for path in saved.glob("*.safetensors") if not complete(path)]
        cut = state._replace(model=Interrupted(), progress=checkpoint.Progress(step=1))
        with suppress(ValueError):
            checkpoint.save(root, cut, keep=2)
        half = [path.name for path in list_checkpoints(root) if path != saved]
        faults += [f"{name} is half written" for name in half]
    if subject.directory:
        faults += [f"{path.name} is pickled" for path in pickled(subject.directory)]
    return judged(
        "checkpoints",
        not faults and not lost,
        f"{lost} tensors are lost or changed by saving and going on" + "".join(f"; {fault}" for fault in faults[:3]),
        "a training that cannot go on from its checkpoints, or leaves half of one, is lost with the machine",
        "write safetensors with the config inside, under a hidden name that is then renamed; strip nothing off names",
    )


class Wrapped(nn.Module):
    """What torch.compile makes of a module: its weights get other names."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self._orig_mod = module


@contextmanager
def names_compiled() -> Iterator[None]:
    """Inside, torch.compile names things as it does, but compiles nothing, which would take a minute."""
    compile = torch.compile
    torch.compile = lambda what, **how: Wrapped(what) if isinstance(what, nn.Module) else what  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compile


def different(one: State, other: State) -> int:
    """How many tensors of weights, average and optimizer differ."""
    count = 0
    for a, b in (
        (one.model.state_dict(), other.model.state_dict()),
        (
            dict(zip(one.ema.names, one.ema.average, strict=True)),
            dict(zip(other.ema.names, other.ema.average, strict=True)),
        ),
        (one.optimizer.tensors(), other.optimizer.tensors()),
    ):
        count += len(a.keys() ^ b.keys()) + sum(not torch.equal(a[key], b[key]) for key in a.keys() & b.keys())
    return count


def pickled(folder: Path) -> list[Path]:
    """Files in a directory and below it that pickle would read."""
    found = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file() and one.suffix not in (".png", ".html")):
        with open(path, "rb") as file:
            if file.read(4).startswith(PICKLED):
                found.append(path)
    return found


def complete(path: Path) -> bool:
    """Whether a file of weights has its config; the optimizer's needs none."""
    try:
        metadata: Any = load_metadata(path)
    except ValueError:
        return False
    return path.name == "optimizer.safetensors" or any(key in metadata for key in CONFIGS)


def recorded_config(subject: Subject) -> Finding | None:
    """The checkpoints of a run that has begun, each with its config."""
    if subject.directory is None or not (kept := list_checkpoints(subject.directory / "checkpoints")):
        return None
    files = [path for one in kept for path in one.glob("*.safetensors")]
    bare = [path for path in files if not complete(path)]
    first = f" ({bare[0].parent.name}/{bare[0].name})" if bare else ""
    return judged(
        "checkpoints there",
        not bare,
        f"{len(bare)} of {len(files)} files lack their config{first}",
        "weights without their config fit any model of their shapes, and draw nonsense in it",
        "save weights with their config in the same file (Pipeline.save)",
    )


def seeds(subject: Subject) -> Finding:
    """Weights and samples of the same seed, which must be the same, and of another, which must not."""
    assert subject.trainee is not None and subject.run is not None
    trainee, model, training = subject.trainee, subject.model, subject.run.training
    torch.manual_seed(1)
    first = list(tensors(trainee.draw(model, 0, 4)))
    built = parameters_of(subject, training.seed)
    torch.manual_seed(2)  # what does not ask the run's seed asks this one
    second = list(tensors(trainee.draw(model, 0, 4)))
    drawn = sum(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    weights = sum(not torch.equal(a, b) for a, b in zip(built, parameters_of(subject, training.seed), strict=True))
    others = parameters_of(subject, training.seed + 1)
    alike = all(torch.equal(a, b) for a, b in zip(built, others, strict=True))
    return judged(
        "seeds",
        drawn == weights == 0 and not alike,
        f"{drawn} of {len(first)} tensors of a step and {weights} of {len(built)} weights change with the same seed; "
        f"another seed gives {'the same' if alike else 'other'} weights",
        "a training that no seed decides cannot be repeated, and two of them cannot be compared",
        "draw all chance from generators made of training.seed and the step (training.step.generator_of)",
    )


def parameters_of(subject: Subject, seed: int) -> list[torch.Tensor]:
    """The first weights of a model of the same config from a seed."""
    model = subject.model
    if isinstance(model, Pipeline):
        fresh: Any = Pipeline.build(model.config, subject.batch.captions, seed).backbone
    else:
        fresh = type(model).build(model.config, seed)
    return [p.detach() for p in fresh.parameters()]


def tensors(sample: Iterable[Any]) -> Iterable[torch.Tensor]:
    """All tensors of a step's sample."""
    for part in sample:
        yield from part.values() if isinstance(part, dict) else [part] if isinstance(part, torch.Tensor) else []
