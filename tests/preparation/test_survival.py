"""Preparations that survive: killed at random moments, by themselves or on Ray, they end in the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from fromnoise.cli.main import main
from fromnoise.data.manifest import read_manifest
from fromnoise.data.prepared import verify
from tests.training.processes import serving

EMOJI = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "noto_emoji_128"
COUNT, SHARD, KILLS = 64, 2, 20


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pictures, one of which is damaged, and one is there twice."""
    if not EMOJI.is_dir():
        pytest.skip("$FROMNOISE_DATA/noto_emoji_128 is absent")
    folder = tmp_path_factory.mktemp("emoji")
    lines = (EMOJI / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:COUNT]
    names = [json.loads(line)["file_name"] for line in lines]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(EMOJI / name, folder / name)
    (folder / names[5]).write_bytes((folder / names[5]).read_bytes()[:500])
    shutil.copy(folder / names[0], folder / names[40])
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def command(
    source: Path, vae: Path, save_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """The command, less where its result goes to."""
    text = save_encoder(tmp_path_factory.mktemp("t5"), "t5")
    options = f"--size 16 --shard {SHARD} --vae {vae} --text {text},length=8 --flip"
    return ["prepare", str(source), *options.split()]


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[[list[str]], ForkServerProcess]]:
    """Starts the command in a process of its own, from a server with torch loaded: twenty would load it long."""
    modules = ["fromnoise.preparation.prepare", "transformers.models.t5.modeling_t5", "fromnoise.models.vae"]

    def start(words: list[str]) -> ForkServerProcess:
        process = context.Process(target=run, args=(words,))
        process.start()
        return process

    with serving(modules) as context:
        yield start


def run(words: list[str]) -> None:
    """The command, in silence."""
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        raise SystemExit(main(words))


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.name != ".lock"}


def written(directory: Path) -> int:
    return len(list(directory.glob("0*.safetensors")))


def test_killed_at_random_moments_it_ends_in_the_same_bytes(
    tmp_path: Path, command: list[str], launch: Callable[[list[str]], ForkServerProcess]
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    process = launch([*command, "--out", str(whole)])
    process.join()
    assert process.exitcode == 0
    assert written(whole) == COUNT // SHARD

    seed = time.time_ns()
    chance = random.Random(seed)
    killed, stages = 0, set()
    for _ in range(KILLS):
        enough = written(torn) + chance.randint(0, 3) if torn.exists() else 0
        process = launch([*command, "--out", str(torn)])
        while process.is_alive() and (not torn.exists() or written(torn) < enough):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        stages.add(written(torn))
    assert killed >= KILLS / 2 and len(stages) > 3, f"chance {seed}: {killed} killed, at {stages}"
    process = launch([*command, "--out", str(torn)])
    process.join()
    assert process.exitcode == 0
    a, b = content(whole), content(torn)
    assert a.keys() == b.keys(), f"chance {seed}"
    assert [name for name in a if a[name] != b[name]] == [], f"chance {seed}"
    manifest = read_manifest(torn)
    assert (manifest.counts.samples, manifest.counts.faults, manifest.duplicates) == (COUNT - 1, 1, 1)
    verify(torn)


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes of Ray below this one that encode."""
    parents, found = {}, []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if b"MapWorker" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended

    def ours(number: int) -> bool:
        return number == process.pid or (number in parents and ours(parents[number]))

    return [number for number in found if ours(number)]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are told by Linux")
def test_ray_with_a_worker_killed_half_way_writes_the_same_bytes(
    tmp_path: Path, command: list[str], launch: Callable[[list[str]], ForkServerProcess]
) -> None:
    pytest.importorskip("ray.data")
    process = launch([*command, "--out", str(tmp_path / "local")])
    out = tmp_path / "ray"
    words = [sys.executable, "-m", "fromnoise.cli.main", *command, "--out", str(out), "--ray", "2"]
    quick = {"RAY_worker_niceness": "0", "RAY_DEDUP_LOGS": "0"}
    with (
        open(tmp_path / "told", "wb") as told,
        subprocess.Popen(words, stdout=told, stderr=told, env=os.environ | quick) as parent,
    ):
        while parent.poll() is None and (not out.exists() or written(out) < 4):
            time.sleep(0.002)
        (first, *_) = workers = workers_of(parent)
        os.kill(first, signal.SIGKILL)
        parent.wait()
    process.join()
    said = (tmp_path / "told").read_text(encoding="utf-8", errors="replace")
    assert len(workers) == 2 and parent.returncode == 0, said
    assert content(out) == content(tmp_path / "local")
    assert f"samples{COUNT - 1:>21}" in said
