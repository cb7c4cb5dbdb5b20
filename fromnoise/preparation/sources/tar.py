"""Pictures in tar files as webdataset lays them: files that differ in their endings alone are one sample.

Of a sample, .jpg, .png, ... is the picture; .txt what it shows, or else a usual key of .json; .cls its class. Where the
picture's ending has more dots, as in 0005.0.jpg, so may theirs: 0005.0.txt.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from fromnoise.data.pictures import SUFFIXES
from fromnoise.data.texts import not_utf8, shown
from fromnoise.preparation.sources.cells import Classes, class_in, cleaned, label_of
from fromnoise.preparation.sources.columns import Columns
from fromnoise.preparation.sources.config import SourceOptions
from fromnoise.preparation.sources.files import refuse_changed, stamp
from fromnoise.preparation.sources.source import Fault, Picture, Portion, Source, hashed

TEXTS = ("txt", "text", "caption")
BLOCK = 512  # bytes, of which a tar consists


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    start: int
    """First byte of its content."""
    size: int


class Sample(NamedTuple):
    """Files that stand together and have one name but for the ending."""

    offset: int
    """First byte of the first file's header."""
    name: str
    members: dict[str, Member]
    """By ending, in small letters: all that follows the first dot."""

    @property
    def pictures(self) -> list[Member]:
        """Those that are pictures, in order; where none has an ending alone, those whose last ending is a picture's."""
        plain = [member for ending, member in self.members.items() if f".{ending}" in SUFFIXES]
        return plain or [member for member in self.members.values() if Path(member.name).suffix.lower() in SUFFIXES]

    def beside(self, ending: str) -> Member | None:
        """The file with this last ending whose name else is the picture's, or the one with this ending alone."""
        name = self.pictures[0].name if self.pictures else self.name
        same = f"{name[len(self.name) + 1 :].rpartition('.')[0].lower()}.{ending}"  # ".txt" where a picture has but one
        return self.members.get(same, self.members.get(ending))


class TarSource(Source):
    """Samples in order, of one file after another.

    Listing reads the headers of all files. Nothing of the samples is held in memory, but of every portion the byte
    where it begins; names are, while a file is listed. A second sample of one name in a file is a fault, and so is a
    second picture in a sample.
    """

    def __init__(self, root: Path, files: Sequence[Path], options: SourceOptions):
        """`files` are below `root`, in order.

        Raises:
            ValueError: one line: a file that is damaged, cut short or compressed; no samples; a negative class.
        """
        self.root, self.files = root, list(files)
        self.stamps = [stamp(path) for path in self.files]
        self.asked = Columns("", options.caption_columns, options.label_column)
        self.portions, self.entries, labels = [], 0, Classes()
        room = 0  # of the last portion
        for place, path in enumerate(self.files):
            seen: set[str] = set()
            with _reading(path) as file:
                for at, sample in enumerate(_samples(file, 0)):
                    if not room:
                        self.portions.append({"parts": []})
                        room = options.shard
                    if not at or room == options.shard:
                        part = {"file": place, "offset": sample.offset, "count": 0, "twice": []}
                        self.portions[-1]["parts"].append(part)
                    part = self.portions[-1]["parts"][-1]
                    part["count"] += 1
                    if sample.name in seen:
                        part["twice"].append(sample.offset)
                    else:
                        with suppress(ValueError):  # told when the sample is read
                            labels.number(self._label(file, sample))
                    seen.add(sample.name)
                    self.entries += len(_others(sample)) + 1
                    room -= 1
        if not self.entries:
            raise ValueError(f"{root} holds no samples in {len(self.files):,} tar files")
        self.known, self.classes, self.class_names = labels.table(str(root)), labels.count, labels.names
        marks = zip(self.files, self.stamps, strict=True)
        listing = hashed(f"{path.relative_to(root).as_posix()}\0{size}\0{modified}" for path, (size, modified) in marks)
        self.parts = {"columns": hashed([repr(self.asked)]), "files": listing}
        self.about = f"{self.entries:,} samples in {len(self.files):,} tar files"

    def read(self, portion: Portion) -> Iterator[Picture | Fault]:
        """Its samples; errors as in `Source`."""
        for part in portion["parts"]:
            path = self.files[part["file"]]
            name = shown(path.relative_to(self.root).as_posix())
            refuse_changed(path, self.stamps[part["file"]], stamp(path))
            with _reading(path) as file:
                samples = _samples(file, part["offset"])
                for _ in range(part["count"]):
                    sample = next(samples)
                    again = sample.offset in part["twice"]
                    yield from self._entries(name, file, sample, again)

    def _entries(self, tar: str, file: IO[bytes], sample: Sample, again: bool) -> Iterator[Picture | Fault]:
        mark = f" at byte {sample.offset}" if again else ""
        if again:
            yield Fault(f"{tar}/{sample.name}{mark}", f"a second sample of this name in {tar}; the first is kept")
        else:
            yield self._entry(tar, file, sample)
        for other in _others(sample):
            kept = Path(sample.pictures[0].name).name
            yield Fault(f"{tar}/{other.name}{mark}", f"a second picture of one sample; {kept} is kept")

    def _entry(self, tar: str, file: IO[bytes], sample: Sample) -> Picture | Fault:
        if not sample.pictures:
            endings = ", ".join(f".{ending}" for ending in sample.members)
            return Fault(f"{tar}/{sample.name}", f"no picture among {endings}")
        picture = sample.pictures[0]
        key = f"{tar}/{picture.name}"
        try:
            captions, label = self._captions(file, sample), class_in(self.known, self._label(file, sample))
        except ValueError as error:
            return Fault(key, str(error))
        return Picture(key, _content(file, picture), captions, label)

    def _captions(self, file: IO[bytes], sample: Sample) -> tuple[str, ...]:
        if self.asked.captions:
            said = _json(file, sample)
            return cleaned(said.get(name) for name in self.asked.captions)
        text = next(filter(None, map(sample.beside, TEXTS)), None)
        return cleaned([_text(file, text)] if text else [_json(file, sample)])

    def _label(self, file: IO[bytes], sample: Sample) -> str:
        if self.asked.label:
            return label_of(_json(file, sample), self.asked)
        told = sample.beside("cls")
        return _text(file, told).strip() if told else ""


def _others(sample: Sample) -> list[Member]:
    """Pictures of a sample besides the one that is kept."""
    return sample.pictures[1:]


def _samples(file: IO[bytes], offset: int) -> Iterator[Sample]:
    """The samples from a byte on, at which one begins.

    Raises:
        ValueError: one line, where the tar does not go on as a tar.
    """
    sample: Sample | None = None
    for header, member in _members(file, offset):
        # The ending begins at the first dot after the last slash; a name that begins with a dot has none.
        parts = re.fullmatch(r"((?:.*/)?[^/.]+)\.([^/]*)", member.name, re.DOTALL)
        if not parts:
            continue
        name, ending = parts[1], parts[2].lower()
        if sample is None or name != sample.name or ending in sample.members:
            if sample is not None:
                yield sample
            sample = Sample(header, name, {})
        sample.members[ending] = member
    if sample is not None:
        yield sample


def _members(file: IO[bytes], offset: int) -> Iterator[tuple[int, Member]]:
    """First byte of the header, and the file, of each file in a tar from a byte on."""
    file.seek(offset)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while found := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # or the headers of all would stay
            if found.isfile():
                name = shown(found.name.removeprefix("./"))
                yield found.offset, Member(name, found.offset_data, found.size)
        file.seek(tar.offset)
        if file.read(BLOCK).strip(b"\0"):  # what is no header ends the list as well
            raise tarfile.ReadError(f"no header at byte {tar.offset:,}")


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    """The open file; what goes wrong with it is told in one line."""
    try:
        with open(path, "rb") as file:
            yield file
    except (OSError, tarfile.TarError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path} is damaged, cut short, compressed or no tar file: {said}") from None


def _content(file: IO[bytes], member: Member) -> bytes:
    file.seek(member.start)
    content = file.read(member.size)
    if len(content) < member.size:
        raise tarfile.ReadError(f"{member.name} ends early")
    return content


def _text(file: IO[bytes], member: Member) -> str:
    try:
        return _content(file, member).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{member.name} {not_utf8(error)}") from None


def _json(file: IO[bytes], sample: Sample) -> dict[str, Any]:
    """What the .json of a sample says; nothing where there is none."""
    member = sample.beside("json")
    if member is None:
        return {}
    try:
        said = json.loads(_text(file, member))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{member.name} is not JSON ({error})") from None
    if not isinstance(said, dict):
        raise ValueError(f"{member.name} must hold an object, not {repr(said)[:60]}")
    return said
