"""The package as others install it: a wheel that holds what it needs, at work in an environment of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from email.parser import HeaderParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fromnoise
from fromnoise.recipes import all_recipes

ROOT = Path(fromnoise.__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PINNED = {
    canonicalize_name(line.partition("==")[0]): line.partition(";")[0].strip().partition("==")[2]
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with what is installed here."""
    place = tmp_path_factory.mktemp("wheel")
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, place], cwd=ROOT, env=bare(), check=True, capture_output=True, encoding="utf-8"
    )
    return place / done.stdout.split()[-1]


def bare() -> dict[str, str]:
    """The environment, in which no directory of source is looked through for packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def test_it_holds_what_it_needs_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {info.filename: info.file_size for info in archive.infolist()}
        metadata = HeaderParser().parsestr(archive.read(one(held, ".dist-info/METADATA")).decode())
        commands = archive.read(one(held, ".dist-info/entry_points.txt")).decode()
    there = subprocess.run(
        ["git", "ls-files", "fromnoise"], cwd=ROOT, check=False, capture_output=True, encoding="utf-8"
    ).stdout.split()
    assert set(there) <= set(held)
    for name in ("shapes", "shapes_judge", "mnist_classifier", "cifar10_classifier"):
        assert held[f"fromnoise/assets/{name}.safetensors"] > 2**20
    assert {f"fromnoise/assets/curves/{name}.json" for name in ("shapes", "dit", "vae-small")} <= set(held)
    assert {name.split("/")[0].partition("-")[0] for name in held} == {"fromnoise"}
    assert not [name for name in held if "test" in name or name.endswith((".pyc", ".tmp"))]
    assert sum(held.values()) < 32 * 2**20
    assert commands.split() == ["[console_scripts]", "fromnoise", "=", "fromnoise.cli.main:main"]
    assert metadata["Version"] == version("fromnoise") == PROJECT["version"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(EXTRAS)


def one(names: Sequence[str] | dict[str, int], ending: str) -> str:
    (found,) = [name for name in names if name.endswith(ending)]
    return found


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_what_an_extra_needs_is_pinned_and_works_here(extra: str) -> None:
    """`pip install 'WHEEL[EXTRA]'` finds what the tests ran with: `test` has all that the other extras have."""
    every = [Requirement(line) for line in (EXTRAS[extra] if extra else PROJECT["dependencies"])]
    wanted = [one for one in every if one.marker is None or one.marker.evaluate()]
    tested = {canonicalize_name(Requirement(line).name) for line in [*EXTRAS["test"], *PROJECT["dependencies"]]}
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        assert name in PINNED, f"{requirement} is not in constraints.txt"
        assert requirement.specifier.contains(PINNED[name], prereleases=True)
        assert name in tested, f"extra {extra}: no test has {name}; add it to the extra test"
        try:
            assert requirement.specifier.contains(version(requirement.name), prereleases=True)
        except PackageNotFoundError:
            pytest.fail(f"extra {extra}: {name} is not installed here")


def test_a_mac_gets_a_torch_whose_gpu_multiplies_rightly() -> None:
    """Older ones lose a single row's bias and large gradients on Apple's first GPUs (PyTorch's 188438 and 193487)."""
    floors = [Requirement(line) for line in PROJECT["dependencies"] if line.startswith("torch>")]
    (there,) = [one for one in floors if one.marker and one.marker.evaluate({"sys_platform": "darwin"})]
    assert not there.specifier.contains("2.13.1") and there.specifier.contains("2.14.0")
    (pin,) = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "torch==" in line]
    assert not Requirement(pin).marker.evaluate({"sys_platform": "darwin"})  # type: ignore[union-attr]


def test_constraints_are_sorted_versions_without_their_places() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0])
    assert all(pin and "/" not in name + pin and "+" not in pin for name, pin in PINNED.items())


def test_it_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    place, folder = tmp_path / "env", tmp_path / "elsewhere"
    venv.create(place, symlinks=os.name != "nt")
    paths = sysconfig.get_paths("venv", vars={"base": str(place), "platbase": str(place), "installed_base": ""})
    packages = Path(paths["purelib"])
    pip = [sys.executable, "-m", "pip", "--python", Path(paths["scripts"]) / "python", "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", wheel], env=bare(), check=True)
    # The other packages are those of these tests; what makes fromnoise itself importable there is not read.
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    folder.mkdir()

    def run(*args: str) -> str:
        command = [Path(paths["scripts"]) / "fromnoise", *args]
        done = subprocess.run(command, cwd=folder, env=bare(), capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    python = [Path(paths["scripts"]) / "python", "-c", "import fromnoise; print(fromnoise.__file__)"]
    there = subprocess.run(python, cwd=folder, env=bare(), capture_output=True, encoding="utf-8", check=True).stdout
    assert Path(there.strip()).is_relative_to(packages)
    assert run("--version").startswith(f"fromnoise {PROJECT['version']}, torch ")
    assert [line.split()[0] for line in run("recipes").splitlines()] == list(all_recipes())
    assert run("sample", "a red circle", "--steps", "2").split() == [str(Path("pictures", "a-red-circle_0.png"))]
    assert (folder / "pictures" / "a-red-circle_0.png").stat().st_size > 1000
    assert run("--complete", "train", "vae-").split() == ["vae-small"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with subprocess.Popen(
        [Path(paths["scripts"]) / "fromnoise", "studio", "--port", port], cwd=folder, env=bare()
    ) as studio:
        try:
            assert "fromnoise studio" in page_of(f"http://127.0.0.1:{port}/", studio)
        finally:
            studio.terminate()


def page_of(address: str, server: subprocess.Popen[bytes]) -> str:
    """The page at `address`, once `server` is up."""
    while server.poll() is None:
        try:
            with urlopen(address) as answer:
                return answer.read().decode()
        except (URLError, ConnectionError):
            time.sleep(0.1)
    return pytest.fail(f"it ended with {server.returncode}")


def test_every_extra_is_told_where_one_installs() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set(EXTRAS)
