"""What all tests share."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import settings

# Examples are the same each time, and a busy machine fails nothing.
settings.register_profile("fromnoise", deadline=None, derandomize=True)
settings.load_profile("fromnoise")


LONG = ["preparation/test_survival.py", "training/test_survival.py", "training/test_parallel.py"]
"""Tests that mostly wait for processes: begun first, so that none of them is left to the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.path.as_posix().endswith(tuple(LONG)))  # else as they were


if TYPE_CHECKING:
    from torch import nn

    M = TypeVar("M", bound=nn.Module)


def stirred(model: M, size: float, seed: int = 1) -> M:
    """`model` with every weight moved from where it starts: zeros among them would hide what it is given."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def unread() -> Callable[[], AbstractContextManager[None]]:
    """Inside `unread()`, whoever was to read what is printed has stopped: the first line of it breaks the pipe."""

    @contextmanager
    def stopped() -> Iterator[None]:
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w", buffering=1) as stream, redirect_stdout(stream):
            yield

    return stopped


@pytest.fixture(scope="session")
def save_vae() -> Callable[..., Path]:
    """`save_vae(folder, seed)`: diffusers' own class at its tiniest (half the side), with chance weights, saved there.

    Further arguments are of its config.
    """
    import torch
    from diffusers import AutoencoderKL

    def save(folder: Path, seed: int = 0, **changes: Any) -> Path:
        options: dict[str, Any] = {
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "block_out_channels": (4, 8),
            "norm_num_groups": 2,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            AutoencoderKL(**(options | changes)).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def vae(save_vae: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny VAE: pictures of 3 channels, latents of 4 on half the side."""
    return save_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="session")
def taef2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of TAEF2 that a reader of docs/latents.md makes of its published files."""
    page = (Path(__file__).parent.parent / "docs" / "latents.md").read_text(encoding="utf-8")
    published = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "weights" / "taef2"
    if not published.is_dir():
        pytest.skip("$FROMNOISE_DATA/weights/taef2 is absent")
    place = tmp_path_factory.mktemp("latents")
    for file in published.glob("*.pth"):
        (place / file.name).symlink_to(file)
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        exec(block, {})
    return place / "taef2"


WORDS = "a one two red green blue circle square left of above photo cat".split()


def small_tokenizer() -> Any:
    """Words to numbers, lower case; "</s>" ends a text, so that "" is one token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
    )


@pytest.fixture(scope="session")
def save_encoder() -> Callable[..., Path]:
    """`save_encoder(folder, kind, seed)`: a tiny text encoder of chance weights, "t5", "bert", "bart" or "gpt2", saved
    there by transformers with a tokenizer of some words."""
    import torch
    import transformers

    from fromnoise.conditioning.frozen import quiet

    sizes = {
        "t5": dict(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2),
        "bert": dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24),
        "bart": dict(
            d_model=12, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=24, decoder_ffn_dim=24,
        ),
        "gpt2": dict(n_embd=12, n_layer=2, n_head=2),
    }  # fmt: skip
    kinds: dict[str, Any] = {
        "t5": transformers.T5EncoderModel,
        "bert": transformers.BertModel,
        "bart": transformers.BartModel,
        "gpt2": transformers.GPT2Model,
    }

    def save(folder: Path, kind: str, seed: int = 0) -> Path:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            cls = kinds[kind]
            cls(cls.config_class(vocab_size=len(WORDS) + 3, **sizes[kind])).save_pretrained(folder)
            small_tokenizer().save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def save_clip() -> Callable[..., Path]:
    """`save_clip(folder, seed)`: a tiny CLIP of chance weights (32 pixels, 12 tokens), saved there by transformers."""
    import torch
    import transformers

    from fromnoise.conditioning.frozen import quiet

    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, projection_dim=12)
    text = dict(vocab_size=len(WORDS) + 3, max_position_embeddings=12, bos_token_id=0, pad_token_id=0, eos_token_id=1)

    def save(folder: Path, seed: int = 0) -> Path:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            vision = sizes | {"image_size": 32, "patch_size": 16}
            config = transformers.CLIPConfig(text_config=sizes | text, vision_config=vision, projection_dim=12)
            transformers.CLIPModel(config).save_pretrained(folder)
            small_tokenizer().save_pretrained(folder)
            side = {"height": 32, "width": 32}
            transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def folders(save_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny text encoder of each kind."""
    place = tmp_path_factory.mktemp("encoders")
    return {kind: save_encoder(place / kind, kind) for kind in ("t5", "bert", "bart", "gpt2")}


class Page(HTMLParser):
    """What a page holds: numbers, addresses, tags, words."""

    def __init__(self, text: str):
        super().__init__()
        self.text = text
        self.values: list[float] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if tag == "data":
                self.values.append(float(value or "nan"))
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                self.addresses.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words += data

    def fetches_nothing(self) -> bool:
        """Whether no address in the page leads out of it."""
        within = all(address.startswith(("#", "data:image/png;base64,")) for address in self.addresses)
        places = re.findall(r"url\(['\"]?([^)]*)", self.text)
        styles = "@import" not in self.text and all(place.startswith("#") for place in places)
        loading = {"script", "link", "iframe", "object", "embed", "base", "form"}
        return within and styles and not loading & set(self.tags)


@pytest.fixture(scope="session")
def read_page() -> Callable[[str], Page]:
    """What the HTML of a page holds."""
    return Page


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
    " --disable-sync --disable-default-apps --disable-extensions --metrics-recording-only --no-pings"
    " --disable-domain-reliability --disable-client-side-phishing-detection --disable-breakpad"
    " --virtual-time-budget=4000"
).split()
ITS_MAKERS = re.compile(r"\b(google|googleapis|gvt1)\.com\b")  # whom Chromium calls by itself, whatever it shows


@contextmanager
def counting_proxy() -> Iterator[tuple[str, list[str]]]:
    """The address of a proxy that refuses whatever it is asked for, and the list of what that was."""
    asked: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            if not ITS_MAKERS.search(self.path):
                asked.append(self.path)
            self.send_error(403)

        do_GET = do_POST = do_HEAD = do_CONNECT = refuse

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Visit = Callable[[str, Path], tuple[str, list[str]]]


@pytest.fixture(scope="session")
def visit() -> Visit | None:
    """`visit(address, place)`: what a page has become in a browser, which keeps its own files in `place`, and every
    address that it asked the network for; None where there is no browser."""
    if CHROMIUM is None:
        return None

    def dump(address: str, place: Path) -> tuple[str, list[str]]:
        with counting_proxy() as (proxy, asked):
            command = [str(CHROMIUM), *QUIET, f"--user-data-dir={place / 'profile'}", f"--proxy-server={proxy}"]
            done = subprocess.run(
                [*command, "--dump-dom", address], capture_output=True, encoding="utf-8", timeout=120, check=True
            )
        return done.stdout, asked

    return dump
