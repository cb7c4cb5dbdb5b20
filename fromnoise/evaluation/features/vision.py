"""Vision models of transformers as feature extractors: CLIP, SigLIP, DINO, DINOv2, any ViT, from a folder or the hub.

Legend: B batch, T texts, H height, W width, P patches, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from fromnoise.conditioning.folder import TOKENIZER, WEIGHTS, hub_name
from fromnoise.conditioning.frozen import quiet
from fromnoise.core.files import file_hash
from fromnoise.evaluation.features.extractor import Extractor
from fromnoise.pipeline.pictures import as_pictures

PROCESSOR = "preprocessor_config.json"
TEXTS = 64  # read together
PICTURES = 16  # seen together
WANTED = "a folder that transformers saved, with config.json, model.safetensors and preprocessor_config.json"


def by_vision_model(name: str, device: torch.device) -> Extractor:
    """The model in the folder `name`, or the hub's: of one that also reads texts the shared space (`get_image_features`
    of CLIP), of others the class token after the last norm (what FD-DINOv2 takes: Stein et al. 2023).

    Raises:
        ValueError: one line, when it is not there, cannot be read, or sees no pictures.
    """
    folder = located(name)
    try:
        import transformers
    except ImportError:
        raise ValueError(f"{name} needs transformers: pip install 'fromnoise[text]'") from None
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", **here)
            model, told = transformers.AutoModel.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **here
            )
            reads = hasattr(model, "get_text_features")
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **here) if reads else None
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ValueError(f"cannot read the vision model {name}: {' '.join(str(error).split())[:300]}") from None
    missing = sorted(key for key in told["missing_keys"] if not key.startswith("pooler."))  # which is not asked
    if missing:
        raise ValueError(f"the vision model {name} lacks {len(missing)} weights: {missing[0]}...")
    if not hasattr(model, "get_image_features") and model.main_input_name != "pixel_values":
        raise ValueError(f"{name} sees no pictures: {type(model).__name__} reads {model.main_input_name}")
    model = model.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def see(images: Tensor) -> Tensor:
        pictures = [picture.convert("RGB") for picture in as_pictures(images)]
        parts = []
        for first in range(0, len(pictures), PICTURES):
            shown = processor(images=pictures[first : first + PICTURES], return_tensors="pt")["pixel_values"]
            parts.append(_seen(model, shown.to(device)).float().cpu())  # (B, D)
        return torch.cat(parts)

    @torch.no_grad()
    def read(texts: Sequence[str]) -> Tensor:
        assert tokenizer is not None, "only a model that reads is asked to"
        most = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        parts = []
        for first in range(0, len(texts), TEXTS):
            some = list(texts[first : first + TEXTS])
            tokens = tokenizer(some, padding="max_length", max_length=most, truncation=True, return_tensors="pt")
            tokens = {key: value.to(device) for key, value in tokens.items()}
            parts.append(_pooled(model.get_text_features(**tokens)).float().cpu())  # (T, D)
        return torch.cat(parts)

    how = {key: value for key, value in processor.to_dict().items() if not key.startswith("_")}
    return Extractor(
        name=Path(name).name,
        weights=hashed(folder),
        preprocessing=json.loads(json.dumps(how, default=str)),
        see=see,
        read=read if tokenizer is not None else None,
    )


def located(name: str) -> Path:
    """The folder `name`, or a copy of what the hub has under that name; ValueError, one line, where there is none."""
    folder, parts = Path(name), hub_name(name)
    if parts:
        try:
            import huggingface_hub

            patterns = ["config.json", PROCESSOR, *WEIGHTS, "model-*.safetensors", *TOKENIZER]
            folder = Path(
                huggingface_hub.snapshot_download(parts["name"], revision=parts["revision"], allow_patterns=patterns)
            )
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"no folder at {name}, and the hub does not give it ({reason}); allowed: {WANTED}"
            ) from None
    for file in ("config.json", PROCESSOR):
        if not (folder / file).is_file():
            raise ValueError(f"no file {folder / file}; allowed: {WANTED}")
    if not any((folder / weights).is_file() for weights in WEIGHTS):
        raise ValueError(f"no file {folder / WEIGHTS[0]} (pickled weights are never read); allowed: {WANTED}")
    return folder


def hashed(folder: Path) -> str:
    """sha256 (hex) over the config and the weights in `folder`."""
    digest = hashlib.sha256()
    for file in sorted([folder / "config.json", *folder.glob("model*.safetensors")]):
        digest.update(bytes.fromhex(file_hash(file)))
    return digest.hexdigest()


def _seen(model: Any, shown: Tensor) -> Tensor:
    """Features (B, D) of pictures as the model takes them, (B, 3, H, W)."""
    if hasattr(model, "get_image_features"):
        return _pooled(model.get_image_features(pixel_values=shown))
    hidden = model(pixel_values=shown).last_hidden_state  # (B, 1 + P, D), or (B, D, h, w) of a convolutional one
    return hidden[:, 0] if hidden.ndim == 3 else hidden.mean((2, 3))


def _pooled(output: Any) -> Tensor:
    """The projected features; before transformers 5 they came alone."""
    return output if isinstance(output, Tensor) else output.pooler_output
