"""Preparing a data set as fromnoise does it, beside a loop that holds everything in memory. Writes one JSON record.

Legend: N pictures, B batch, S side, L tokens, W width of a token, Z channels, h and w rows and columns of a latent.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import PositiveInt
from rich.console import Console
from safetensors.torch import save_file

from benchmarks.harness import describe_machine, run_main, write_record
from fromnoise.cli.flags import parse
from fromnoise.conditioning.config import EncoderConfig
from fromnoise.conditioning.frozen import FrozenEncoder, quiet
from fromnoise.core.config import Config
from fromnoise.core.needs import memory_of
from fromnoise.data.listing import list_pictures
from fromnoise.data.manifest import read_manifest
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.prepare import cores, prepare
from fromnoise.preparation.sources.config import SourceOptions
from fromnoise.preparation.sources.open import open_source
from fromnoise.preparation.sources.source import Picture

RECORD = Path(__file__).parent / "results" / "preparation.json"
MIB = 2**20
LENGTH = 77  # tokens of a CLIP caption, padding included
USAGE = "python -m benchmarks.preparation [--option VALUE ...]"
DESCRIPTION = """\
Writes JPEGs, with real captions that all differ, into a temporary folder, and prepares them twice, each time in a fresh
process: by fromnoise prepare, and by a loop that decodes and squashes pictures one by one, holds them all, encodes them
and their captions in batches of 16, padded to 77 tokens, and puts everything together and saves it at the end. Both use
the same encoders, tiny ones of chance weights, on all cores. Needs $FROMNOISE_DATA.
"""


class Settings(Config):
    """What is prepared, and by which encoders."""

    pictures: PositiveInt = 20_000
    """Pictures; no more than there are captions, 25,014."""
    original: PositiveInt = 512
    """Shorter side of a JPEG, in pixels: text-to-image-2M's are of 512."""
    side: PositiveInt = 256
    """Side of what is stored, in pixels."""
    batch: PositiveInt = 16
    """Batch of the loop."""
    channels: PositiveInt = 4
    """Of the VAE's first layers; it makes latents of 4 channels on an eighth of the side."""
    width: PositiveInt = 256
    """Numbers of a token."""
    layers: PositiveInt = 4
    """Of the text encoder, which is a CLIP of the published vocabulary. Like a T5 it costs more than the VAE."""
    folder: Path | None = None
    """Where the temporary folder is made; left out, where the system has its own."""
    out: Path = RECORD
    """File of the record."""


def originals(data: Path) -> Iterator[Image.Image]:
    """Photographs, emoji and CIFAR-10's pictures, one after the other."""
    for name in ("coco_mini_256", "noto_emoji_128"):
        for file in list_pictures(data / name).captions:
            with Image.open(data / name / file) as image:
                yield image.convert("RGB")
    source = open_source("cifar10", SourceOptions())
    for portion in source.portions:
        for entry in source.read(portion):
            assert isinstance(entry, Picture), "CIFAR-10 is sound"
            yield Image.open(BytesIO(entry.content)).convert("RGB")


def write_pictures(folder: Path, data: Path, settings: Settings, advance: Callable[[int], None]) -> None:
    """JPEGs of several shapes, of which `settings.original` is the shorter side, and their captions."""
    with gzip.open(data / "prompts" / "coco_val2017_captions.jsonl.gz", "rt", encoding="utf-8") as file:
        said = list(dict.fromkeys(json.loads(line)["caption"].strip() for line in file))[: settings.pictures]
    if len(said) < settings.pictures:
        raise ValueError(f"pictures is {settings.pictures:,}; allowed: up to {len(said):,}, as many as captions")
    folder.mkdir()
    lines = []
    for i, image in enumerate(islice(originals(data), settings.pictures)):
        longer = settings.original * (16 + i % 7) // 16  # up to 22 : 16
        sides = (settings.original, longer) if i % 2 else (longer, settings.original)
        image.resize(sides, Image.Resampling.BICUBIC).save(folder / f"{i:06}.jpg", quality=90)
        lines.append(json.dumps({"file_name": f"{i:06}.jpg", "text": said[i]}, ensure_ascii=False) + "\n")
        advance(i + 1)
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")


def write_encoders(folder: Path, data: Path, settings: Settings) -> None:
    """A tiny VAE and a tiny CLIP of chance weights, as diffusers and transformers save them."""
    import transformers
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    levels, width = 4, settings.channels
    sides: Any = {  # whose types say one level
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": (width, width, 2 * width, 2 * width),
    }
    AutoencoderKL(**sides, norm_num_groups=2, mid_block_add_attention=False).save_pretrained(folder / "vae")
    with gzip.open(data / "clip" / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().split("\n")[1 : 49152 - 256 - 2 + 1]]
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [*map(chr, plain), *(chr(256 + i) for i in range(256 - len(plain)))]
    words = [*letters, *(f"{one}</w>" for one in letters), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    tokenizer: Any = transformers.CLIPTokenizer
    tokenizer({word: i for i, word in enumerate(words)}, merges, model_max_length=LENGTH).save_pretrained(
        folder / "clip"
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=settings.width,
        intermediate_size=4 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=max(1, settings.width // 64),
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )
    with quiet():
        transformers.CLIPTextModel(config).save_pretrained(folder / "clip")


def encoders(place: Path) -> tuple[Path, EncoderConfig]:
    return place / "vae", EncoderConfig(path=str(place / "clip"), length=LENGTH)


@torch.no_grad()
def everything_at_once(place: Path, settings: Settings) -> None:
    """Prepare as is done where memory is no matter, with the classes of diffusers and transformers."""
    from diffusers import AutoencoderKL

    torch.set_num_threads(cores())
    vae, clip = encoders(place)
    with quiet():
        stock, text = AutoencoderKL.from_pretrained(vae, low_cpu_mem_usage=False).eval(), FrozenEncoder(clip)
    pictures, captions = [], []
    for name, said in list_pictures(place / "pictures").captions.items():
        with Image.open(place / "pictures" / name) as image:
            squashed = image.convert("RGB").resize((settings.side, settings.side), Image.Resampling.LANCZOS)
        pictures.append(np.asarray(squashed))  # (S, S, 3) uint8
        captions.append(said[0])
    latents, tokens, masks, vectors = [], [], [], []
    for first in range(0, len(pictures), settings.batch):
        batch = slice(first, first + settings.batch)
        images = torch.from_numpy(np.stack(pictures[batch])).permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, S, S)
        encoded: Any = stock.encode(images)
        posterior = encoded.latent_dist
        latents.append(torch.cat((posterior.mean, posterior.std), 1).half())  # (B, 2 Z, h, w)
        read = text.tokenizer(
            captions[batch], padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        heard = text.model(input_ids=read["input_ids"], attention_mask=read["attention_mask"])
        tokens.append(heard.last_hidden_state.half())  # (B, L, W)
        vectors.append(heard.pooler_output.half())  # (B, W)
        masks.append(read["attention_mask"].bool())  # (B, L)
    everything = {"latents": latents, "tokens": tokens, "masks": masks, "vectors": vectors}
    together = {name: torch.cat(parts).contiguous() for name, parts in everything.items()}
    save_file(together, place / "everything.safetensors")
    (place / "captions.json").write_text(json.dumps(captions, ensure_ascii=False), encoding="utf-8")


def by_fromnoise(place: Path, settings: Settings) -> None:
    """Prepare as `fromnoise prepare` does."""
    vae, clip = encoders(place)
    prepare(str(place / "pictures"), place / "prepared", Preparation(size=settings.side, vae=vae, text=(clip,)))


def measure(work: Callable[[Path, Settings], None], place: Path, settings: Settings) -> dict[str, float]:
    """Seconds of one preparation, and MiB that its process held at most: in all, and beyond what it held before."""
    before, start, used = memory_of("VmRSS") / MIB, time.perf_counter(), processor()
    work(place, settings)
    seconds = time.perf_counter() - start
    peak = memory_of("VmHWM") / MIB
    return {
        "seconds": seconds,
        "processor_seconds": processor() - used,
        "images_per_second": settings.pictures / seconds,
        "mib_at_most": peak,
        "mib_at_most_beyond_libraries": peak - before,
    }


def processor() -> float:
    """Seconds of processor time that this process used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def text_bytes(place: Path, settings: Settings) -> tuple[int, int]:
    """Bytes of the text features, captions themselves not counted: by fromnoise, and by the loop."""
    half, (encoder,) = 2, read_manifest(place / "prepared").layout.texts
    counts = read_manifest(place / "prepared").counts
    offsets = 8 * counts.texts
    ours = half * encoder * (counts.tokens + counts.texts) + offsets
    return ours, settings.pictures * (half * encoder * (LENGTH + 1) + LENGTH)


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    if "FROMNOISE_DATA" not in os.environ:
        raise ValueError("pictures are made of those in $FROMNOISE_DATA, which is not set")
    data = Path(os.environ["FROMNOISE_DATA"])
    say = Console(stderr=True).print
    machine, found = describe_machine(), {}
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        place = Path(folder)
        write_encoders(place, data, settings)
        write_pictures(
            place / "pictures", data, settings, lambda i: say(f"{i:,} pictures written") if i % 5000 == 0 else None
        )
        for name, work in (("fromnoise", by_fromnoise), ("everything at once", everything_at_once)):
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                found[name] = fresh.submit(measure, work, place, settings).result()
            say(f"{name}: {found[name]['images_per_second']:,.0f} images/s, {found[name]['mib_at_most']:,.0f} MiB")
        ours, theirs = text_bytes(place, settings)
    a, b = found["fromnoise"], found["everything at once"]
    a["text_bytes"], b["text_bytes"] = ours, theirs
    ratios = {"images_per_second": a["images_per_second"] / b["images_per_second"]}
    for name in ("text_bytes", "mib_at_most", "mib_at_most_beyond_libraries", "processor_seconds"):
        ratios[name] = b[name] / a[name]
    say(", ".join(f"{name} {value:.1f} times" for name, value in ratios.items()))
    record = {
        "command": " ".join(["python -m benchmarks.preparation", *args]),
        "machine": machine,
        "settings": settings.model_dump(mode="json", exclude={"folder", "out"}),
        "found": found,
        "ratios": ratios,
    }
    write_record(settings.out, record)


if __name__ == "__main__":
    run_main(main)
