"""The components of an exported folder, each as diffusers keeps it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.conditioning.config import FrozenTextConfig
from fromnoise.conditioning.folder import locate
from fromnoise.core.files import save_tensors, write_text
from fromnoise.diffusion.sample import SAMPLERS
from fromnoise.diffusion.target import TARGETS
from fromnoise.interop.fold import folded, folded_vae
from fromnoise.interop.folder import INDEX, ORIGINALS, RECORD
from fromnoise.interop.layout import Layout, flows
from fromnoise.interop.schedules import PREDICTIONS, betas
from fromnoise.interop.source import standalone
from fromnoise.interop.stock import Stock, stock_of, table_of
from fromnoise.models.config import TinyConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.config import LatentConfig
from fromnoise.space.folder import CONFIG, WEIGHTS


class Writer:
    """Writes the components of `pipeline` into `folder`, and remembers them."""

    def __init__(self, pipeline: Pipeline, folder: Path):
        self.pipeline, self.folder = pipeline, folder
        self.parts: dict[str, str] = {}
        self.index: dict[str, Any] = {}
        self.originals: dict[str, Tensor] = {}  # weights that a stock class holds in another form only

    def own(self) -> None:
        """The layout whose pipeline is written along."""
        config, sampling = self.pipeline.config, self.pipeline.config.sampling
        ask = self.backbone()
        read = self.conditioner(ask == "ask_dit")
        given: dict[str, Any] = {"Way": type(config.path), "WAY": config.path.model_dump(exclude={"type"})}
        given |= {"target": TARGETS[config.objective.target], "ask": _glue(ask), "read": _glue(read)}
        latent = isinstance(config.space, LatentConfig)
        given |= {"show": _glue("show_latents" if latent else "show_pixels"), "MOVED": self.space()}
        given["steps_of"] = _glue("steps_of_flow_euler" if flows(self.pipeline) else "steps_of_sampler")
        self.scheduler()
        from fromnoise.interop.carried.pipeline import FromnoisePipeline

        name = self.code("", "pipeline", FromnoisePipeline, given, "Draws as the run that this folder is of.")
        channels, *_ = self.pipeline.latent_shape(config.size, config.size)
        self.index |= {
            "channels": channels,
            "size": config.size,
            "factor": self.pipeline.space.factor,
            "steps": sampling.steps,
            "guidance": sampling.guidance,
            "guidance_from": sampling.interval[0],
            "guidance_to": sampling.interval[1],
        }
        self.finish([name, "FromnoisePipeline"])

    def stock(self, layout: Layout) -> None:
        """A layout whose pipeline is one of diffusers'."""
        backbone, self.originals = folded(self.pipeline)
        self.stock_backbone(backbone)
        vae = folded_vae(self.pipeline)
        self.put("vae", vae)
        self.put("scheduler", beta_scheduler(self.pipeline, layout))
        if layout.name == "dit":
            conditioner: Any = self.pipeline.config.conditioner
            names = conditioner.names or range(conditioner.classes)
            self.index["id2label"] = {str(i): str(name) for i, name in enumerate(names)}
        else:
            self.encoders()
            empty = {key: [None, None] for key in ("safety_checker", "feature_extractor", "image_encoder")}
            self.index |= {**empty, "requires_safety_checker": False}
        self.finish(layout.pipeline)

    def backbone(self) -> str:
        """The backbone; the name of the function that asks it."""
        stock, config = stock_of(self.pipeline), self.pipeline.config
        if stock is not None:
            self.stock_backbone(stock)
            if stock.ask == "ask_dit":
                state = self.pipeline.state_dict()
                kept = [key for key in state if key.startswith(("backbone.condition.", "conditioner."))]
                self.originals = {key: state[key] for key in kept}
            return stock.ask
        from fromnoise.interop.carried.backbone import Backbone

        network = self.pipeline.backbone
        given = {"Settings": type(config.backbone), "Network": type(network)}
        channels, *_ = self.pipeline.latent_shape(config.size, config.size)
        settings = config.backbone.model_dump(mode="json", exclude={"type"})
        told = {"settings": settings, "channels": channels, "cond_width": self.pipeline.conditioner.width}
        state = {f"network.{key}": value for key, value in network.state_dict().items()}
        self.model("transformer", Backbone, given, told, state)
        return "ask_backbone"

    def stock_backbone(self, stock: Stock) -> None:
        """A backbone of diffusers' class, whose weights must all be there."""
        import diffusers

        model = getattr(diffusers, stock.cls)(**stock.config)
        model.load_state_dict(stock.state, strict=True)
        self.put(stock.slot, model)

    def conditioner(self, numbers: bool) -> str:
        """What reads prompts; the name of the function that asks it. numbers: only the number of a class is wanted."""
        from fromnoise.interop.carried import readers

        config: Any = self.pipeline.config.conditioner
        module = self.pipeline.conditioner
        state = {key: value.clone() for key, value in module.state_dict().items()}
        table = table_of(self.pipeline)
        if table is not None:
            told = {"classes": len(table) - 1, "width": 1 if numbers else module.width}
            held = torch.arange(len(table)).float()[:, None] if numbers else table.clone()
            self.model("conditioner", readers.ClassReader, {}, told, {"table": held})
            return "read_classes" if config.type == "label" else "read_nothing"
        if isinstance(config, FrozenTextConfig):
            self.encoders()
            told = {
                "widths": [encoder.width for encoder in module.encoders],
                "width": module.width,
                "lengths": [one.length for one in config.encoders],
                "layers": [one.layer for one in config.encoders],
                "padding": [one.padding == "read" for one in config.encoders],
                "pools": [encoder.pools for encoder in module.encoders],
            }
            self.model("conditioner", readers.FrozenReader, {}, told, state)
            return "read_frozen"
        told = {
            "vocabulary": module.tokenizer.get_vocab_size(),
            "width": module.width,
            "depth": config.depth,
            "heads": config.heads,
            "most": module.most,
            "length": module.length,
        }
        self.model("conditioner", readers.TextReader, {}, told, state)
        self.tokenizer()
        return "read_text"

    def tokenizer(self) -> None:
        """The BPE that was learned from the captions, as transformers reads one."""
        from fromnoise.conditioning.text import PAD, SPECIAL

        module = self.pipeline.conditioner
        place = self.folder / "tokenizer"
        place.mkdir()
        write_text(place / "tokenizer.json", module.tokenizer.to_str(pretty=True))
        told = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": SPECIAL[PAD],
            "model_max_length": module.most,
            "split_special_tokens": True,  # a prompt that spells one is text like any other
            "clean_up_tokenization_spaces": False,
        }
        write_text(place / "tokenizer_config.json", json.dumps(told, indent=2) + "\n")
        self.index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
        self.parts["tokenizer"] = "PreTrainedTokenizerFast"

    def encoders(self) -> None:
        """The frozen text encoders and their tokenizers, file by file."""
        import transformers

        for i, encoder in enumerate(self.pipeline.conditioner.encoders):
            suffix = f"_{i + 1}" if i else ""
            source, model, tokenizer = locate(encoder.config.path), encoder.model, encoder.tokenizer
            names = type(model).__name__, type(tokenizer).__name__
            for name in names:
                if i > 2 or not hasattr(transformers, name):
                    raise ValueError(
                        f"cannot export the text encoder {encoder.config.path}, a {names[0]} with a {names[1]}; "
                        f"allowed: up to three that transformers opens by name, as CLIPTextModel or T5EncoderModel"
                    )
            for slot, name, place in zip(("text_encoder", "tokenizer"), names, source, strict=True):
                target = self.folder / (slot + suffix)
                target.mkdir()
                for file in source.files:
                    if file.parent == place:
                        shutil.copyfile(file, target / file.name)
                self.index[slot + suffix] = ["transformers", name]
                self.parts[slot + suffix] = name

    def space(self) -> dict[str, Any]:
        """The autoencoder, where there is one; what latents or pixels were moved by."""
        config: Any = self.pipeline.config.space
        if not isinstance(config, LatentConfig):
            return {"shift": config.shift}
        space = self.pipeline.space
        place = self.folder / "vae"
        if isinstance(space.vae.config, TinyConfig) and space.vae.config.midblock_norm:
            from fromnoise.interop.carried.decoder import Autoencoder

            told = {"settings": space.vae.config.model_dump(mode="json")}
            state = {f"network.{key}": value.clone() for key, value in space.vae.named_buffers()}
            self.model("vae", Autoencoder, {}, told, state)
        else:
            place.mkdir()
            for name in (CONFIG, WEIGHTS):
                shutil.copyfile(config.path / name, place / name)
            cls = json.loads((place / CONFIG).read_text(encoding="utf-8"))["_class_name"]
            self.index["vae"] = ["diffusers", cls]
            self.parts["vae"] = cls
        return {name: space.state[name] for name in ("shift", "scale")}

    def scheduler(self) -> None:
        """diffusers' Euler steps of a flow, or fromnoise's own samplers."""
        sampling = self.pipeline.config.sampling
        if flows(self.pipeline):
            from diffusers import FlowMatchEulerDiscreteScheduler

            self.put("scheduler", FlowMatchEulerDiscreteScheduler(shift=sampling.shift))
            return
        from fromnoise.interop.carried.sampler import SamplerScheduler

        module = SAMPLERS[sampling.sampler].__module__
        if module != "fromnoise.diffusion.sample":
            raise ValueError(
                f"sampler {sampling.sampler} is defined in {module}; allowed in an export: fromnoise's own"
            )
        name = self.code("scheduler", "sampler", SamplerScheduler, {}, "fromnoise's samplers, one function each.")
        told = {"_class_name": "SamplerScheduler", **sampling.model_dump(include={"sampler", "shift", "eta"})}
        write_text(self.folder / "scheduler" / "scheduler_config.json", json.dumps(told, indent=2) + "\n")
        self.index["scheduler"] = [name, "SamplerScheduler"]
        self.parts["scheduler"] = "SamplerScheduler (own code)"

    def put(self, slot: str, part: Any) -> None:
        """A component of a class of diffusers'."""
        part.save_pretrained(self.folder / slot)
        self.index[slot] = ["diffusers", type(part).__name__]
        self.parts[slot] = type(part).__name__

    def model(
        self, slot: str, cls: type[nn.Module], given: dict[str, Any], told: dict[str, Any], state: dict[str, Tensor]
    ) -> None:
        """A component whose code is written along: of `cls`, made by `told`."""
        name = self.code(slot, slot, cls, given, f"{cls.__name__} of fromnoise, as diffusers keeps a model.")
        config = {"_class_name": cls.__name__, **told}
        write_text(self.folder / slot / "config.json", json.dumps(config, indent=2) + "\n")
        contiguous = {key: value.contiguous() for key, value in state.items()}
        save_tensors(self.folder / slot / "diffusion_pytorch_model.safetensors", contiguous, {"format": "pt"})
        self.index[slot] = [name, cls.__name__]
        self.parts[slot] = f"{cls.__name__} (own code)"

    def code(self, slot: str, stem: str, cls: type, given: dict[str, Any], about: str) -> str:
        """A file of code in the folder `slot`; its name, which no other code has: diffusers keeps all it opens in one
        place, by name."""
        text = standalone(cls, given, about)
        name = f"{stem}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        (self.folder / slot).mkdir(exist_ok=True)
        write_text(self.folder / slot / f"{name}.py", text)
        return name

    def finish(self, cls: str | list[str]) -> None:
        """model_index.json."""
        import diffusers

        told = {"_class_name": cls, "_diffusers_version": diffusers.__version__, **self.index}
        write_text(self.folder / INDEX, json.dumps(told, indent=2) + "\n")

    def record(self, run: Any) -> None:
        """What `fromnoise import` needs to make the same run of the folder again."""
        config, states = self.pipeline.config, (self.pipeline.conditioner.state, self.pipeline.space.state)
        told = {"model": config.model_dump(mode="json"), "conditioner": states[0], "space": states[1]}
        told["run"] = run.model_dump(mode="json") if run else None
        write_text(self.folder / RECORD, json.dumps(told, indent=2) + "\n")
        if self.originals:
            save_tensors(self.folder / ORIGINALS, {k: v.contiguous() for k, v in self.originals.items()}, {})


def beta_scheduler(pipeline: Pipeline, layout: Layout) -> Any:
    """The scheduler of diffusers' that steps as the run's sampler does on the betas of its path."""
    import diffusers

    path: Any = pipeline.config.path
    told = betas(path, PREDICTIONS[pipeline.config.objective.target])
    sampler = pipeline.config.sampling.sampler
    if sampler == "dpmpp_2m":
        return diffusers.DPMSolverMultistepScheduler(**told, final_sigmas_type="zero")
    if layout.name == "stable-diffusion":  # Euler's method in sigma is DDIM, and starts from as much noise as we do
        return diffusers.EulerDiscreteScheduler(**told, steps_offset=1)
    return diffusers.DDIMScheduler(**told, clip_sample=False, set_alpha_to_one=True)


def _glue(name: str) -> Any:
    from fromnoise.interop.carried import glue

    return getattr(glue, name)
