"""What is evaluated: a model, the data it learned from, and what it draws, each made when it is first asked for.

Legend: N pictures, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fromnoise.core.ranks import ALONE, Ranks
from fromnoise.core.types import Data
from fromnoise.data.config import ShapesConfig
from fromnoise.data.labelled import LabelledData
from fromnoise.data.prepared import PreparedData
from fromnoise.evaluation.comparison.measure import Watch
from fromnoise.evaluation.features.extractor import Extractor, by_classifier, extractor_of, pixels
from fromnoise.evaluation.features.real import NotMeasured
from fromnoise.evaluation.judges import classifier, protocol
from fromnoise.evaluation.judges.classifier import Classifier, Domain
from fromnoise.evaluation.judges.domains import DOMAINS
from fromnoise.evaluation.judges.judge import kind_of
from fromnoise.evaluation.wanted import Wanted
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.directory import run_of
from fromnoise.training.run import Run


class Prompts(NamedTuple):
    """What to draw: prompts, and their classes."""

    said: Sequence[str]
    labels: Sequence[int]


@dataclass
class Subject:
    """A model in `place`, on what it is asked for; `watch` shows how far long work has come. `ranks` share drawing."""

    place: Path
    wanted: Wanted
    watch: Watch
    ranks: Ranks = ALONE
    drawing: dict[str, Any] = field(default_factory=dict)
    """How the pictures `drawn` were drawn, plain for JSON; empty before."""

    @cached_property
    def file(self) -> Path:
        """The weights."""
        return weights(self.place, raw=self.wanted.raw)

    @cached_property
    def pipeline(self) -> Pipeline:
        return load(self.place, raw=self.wanted.raw, device=self.wanted.device)

    @cached_property
    def run(self) -> Run | None:
        """The run that the weights are from."""
        return run_of(self.file)

    @cached_property
    def directory(self) -> Path | None:
        """Where results are kept: the run's, where that is what was given."""
        return self.place if self.ranks.first and (self.place / "run.yaml").is_file() else None

    @cached_property
    def kind(self) -> str:
        """Whose pictures are expected: a type of data."""
        if self.wanted.judge != "auto":
            return self.wanted.judge
        if self.run is None:
            return "mnist" if self.pipeline.config.channels == 1 else "shapes"
        kind, config = kind_of(self.run.data), self.pipeline.config
        sides = DOMAINS[kind].sides if kind in DOMAINS else (config.size,)
        return kind if config.size in sides else self.run.data.type  # prepared at a size that the classifier knows not

    @property
    def domain(self) -> Domain | None:
        """The judge of pictures of classes, where there is one for them."""
        return DOMAINS.get(self.kind)

    @cached_property
    def published(self) -> LabelledData:
        """The domain's own pictures."""
        assert self.domain, "who asks has a domain"
        return self.domain.published()

    @cached_property
    def data(self) -> Data:
        """What the model learned from.

        Raises:
            NotMeasured: where it is not there.
        """
        try:
            if self.run:
                return self.run.data.build(self.run.training.seed)
            return self.published if self.domain else ShapesConfig(size=self.pipeline.config.size).build(0)
        except ValueError as error:
            raise NotMeasured(f"the data of the run are not there: {error}") from None

    @property
    def pictures(self) -> Data:
        """What real pictures are taken from: published ones, where the run's were encoded from them."""
        return self.published if self.domain else self.data

    @property
    def encoded(self) -> bool:
        """Whether real pictures must be decoded first, which may take long."""
        return isinstance(self.pictures, PreparedData)

    @cached_property
    def asked(self) -> Prompts:
        """Classes in turn, or validation captions in turn."""
        if self.domain:
            return Prompts(*protocol.prompts(self.domain, self.wanted.samples))
        n = self.wanted.samples
        batch = self.data.validation(n)
        return Prompts(batch.captions, batch.labels.tolist())

    @cached_property
    def drawn(self) -> protocol.Drawn:
        """The pictures, picture i from the noise of `seed` + i."""
        wanted = self.wanted
        self.drawing = self.pipeline.sampling(None, wanted.steps, wanted.guidance).model_dump(mode="json")
        how: dict[str, Any] = {"steps": wanted.steps, "guidance": wanted.guidance, "batch": wanted.batch}
        with self.watch("drawing") as progress:
            how |= {"progress": progress, "ranks": self.ranks}
            if self.domain:
                return protocol.draw(self.domain, self.pipeline, wanted.samples, wanted.seed, **how)
            return protocol.draw_all(self.pipeline, *self.asked, wanted.seed, **how)

    @cached_property
    def network(self) -> Classifier:
        """The classifier of the domain."""
        assert self.domain, "who asks has a domain"
        return classifier.load(self.domain)[0]

    @cached_property
    def real(self) -> protocol.Reference:
        """What the classifier makes of the domain's own pictures."""
        assert self.domain, "who asks has a domain"
        with self.watch(f"reading real {self.domain.name}") as progress:
            return protocol.reference(self.network, self.published, progress)

    @cached_property
    def extractors(self) -> list[Extractor]:
        """What sees the pictures."""
        usual = by_classifier(self.domain) if self.domain else pixels()
        device = self.pipeline.device
        return [usual if name == "auto" else extractor_of(name, device) for name in self.wanted.features]

    @cached_property
    def seen(self) -> dict[str, Tensor]:
        """Features (N, D) of the drawn pictures, by the hash of each extractor."""
        return {}

    def features(self, extractor: Extractor) -> Tensor:
        """Of the drawn pictures, (N, D)."""
        if extractor.sha256 not in self.seen:
            images, total = self.drawn.images, len(self.drawn.images)
            with self.watch(f"{extractor.name} looks at drawn pictures") as progress:
                self.seen[extractor.sha256] = extractor.features(images.split(self.wanted.batch), total, progress)
        return self.seen[extractor.sha256]
