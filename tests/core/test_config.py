"""Configs: what is refused and in which words, and the record in YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import PositiveFloat, ValidationError

from fromnoise.core.config import Config, Kind, Name, explain, read_yaml, write_yaml


class Shape(Config):
    type: str


class Round(Shape):
    type: Literal["round"] = "round"
    radius: PositiveFloat = 1.0


class Square(Shape):
    type: Literal["square"] = "square"
    side: PositiveFloat = 1.0


SHAPES: list[type[Shape]] = [Round, Square]
COLORS = {"red": 0xFF0000, "green": 0x00FF00}


class Thing(Config):
    shape: Annotated[Shape, Kind(SHAPES)] = Round()
    color: Annotated[str, Name(COLORS)] = "red"
    weight: PositiveFloat


class Tone(Config):
    """No shape."""


class Tree(Config):
    name: str = "oak"
    mode: Literal["auto", "on", "off"] = "auto"
    share: float = 0.5
    between: tuple[float, float] = (0.0, 1.0)
    words: tuple[str, ...] = ()
    thing: Thing = Thing(weight=2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nome": "x"}, ["nome: no such key", "name, mode, share", "nearest: name"]),
        ({"qqqq": 1}, ["qqqq: no such key", "allowed: name"]),
        ({"thing": {"weight": 1, "shape": {"type": "round", "radios": 2}}}, ["thing.shape.radios:", "nearest: radius"]),
        ({"thing": {"weight": 1, "shape": {"type": "round", "radius": -2}}}, ["thing.shape.radius: given -2;", "0"]),
        ({"thing": {"weight": 1, "shape": {"type": "sqare"}}}, ["thing.shape.type: given 'sqare'", "nearest: square"]),
        ({"thing": {"weight": 1, "shape": {"side": 1}}}, ["thing.shape.type: must be given"]),
        (
            {"thing": {"weight": 1, "shape": {"type": ["round"]}}},
            ["thing.shape.type: given ['round']; allowed"],
        ),
        ({"thing": {"weight": 1, "shape": 3}}, ["thing.shape: given 3; allowed: a mapping with a type"]),
        ({"thing": {"weight": 1, "shape": Tone()}}, ["thing.shape: given Tone(); allowed: a mapping"]),
        ({"thing": {"weight": 1, "color": "gren"}}, ["thing.color: given 'gren'; allowed: red, green; nearest: green"]),
        ({"thing": {}}, ["thing.weight: must be given"]),
        ({"mode": "of"}, ["mode: given 'of'", "allowed: auto, on, off", "nearest: off"]),
        ({"share": "much"}, ["share: given 'much'", "number"]),
        ({"share": float("nan")}, ["share: given nan", "finite"]),
        ({"between": [0, "x"]}, ["between.1: given 'x'"]),
        ({"name": 3, "share": "x"}, ["name: given 3", "string", "(and 1 more)"]),
    ],
)
def test_explain_names_key_value_and_what_is_allowed(given: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Tree.model_validate(given)
    line = explain(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line


def test_explain_keeps_a_key_that_is_called_like_a_type() -> None:
    class Shape(Config):
        round: Round = Round()

    with pytest.raises(ValidationError) as caught:
        Shape.model_validate({"round": {"radius": 0}})
    assert explain(caught.value).startswith("round.radius: given 0")


def test_a_row_added_later_counts_and_comes_back_from_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    class Oval(Shape):
        type: Literal["oval"] = "oval"
        ratio: PositiveFloat = 2.0

    described = {"weight": 1, "shape": {"type": "oval", "ratio": 3}, "color": "blue"}
    with pytest.raises(ValidationError):
        Thing.model_validate(described)
    SHAPES.append(Oval)
    monkeypatch.setitem(COLORS, "blue", 0x0000FF)
    try:
        thing = Thing.model_validate(described)
        assert thing == Thing(weight=1, shape=Oval(ratio=3), color="blue")
        assert Thing.model_validate_json(thing.model_dump_json()) == thing
    finally:
        SHAPES.remove(Oval)


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Tree().name = "elm"  # type: ignore[misc]


numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\x85\u2028\u2029\ufeff")
)


@settings(max_examples=30)
@given(texts, numbers, st.lists(texts), st.sampled_from(["auto", "on", "off"]), st.floats(1e-9, 1e9))
def test_yaml_gives_back_the_same_config(
    tmp_path_factory: pytest.TempPathFactory, name: str, share: float, words: list[str], mode: str, side: float
) -> None:
    thing = {"shape": {"type": "square", "side": side}, "weight": 1}
    tree = Tree.model_validate({"name": name, "share": share, "words": words, "mode": mode, "thing": thing})
    path = tmp_path_factory.getbasetemp() / "tree.yaml"
    write_yaml(tree, path)
    assert read_yaml(Tree, path) == tree


def test_yaml_written_by_hand_means_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "tree.yaml"
    path.write_text("mode: on\nname: no\nshare: 1e-4\nthing: {weight: 3}\n")
    assert read_yaml(Tree, path) == Tree(mode="on", name="no", share=1e-4, thing=Thing(weight=3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nome: x", "nome: no such key"),
        ("- 1\n- 2", "must hold a mapping of keys to values, but holds [1, 2]"),
        ("", "holds None"),
        ("a: [1,", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "tree.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"tree\.yaml") as caught:
        read_yaml(Tree, path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*none.yaml: No such file"):
        read_yaml(Tree, tmp_path / "none.yaml")
    (tmp_path / "latin").write_bytes(b"name: caf\xe9")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_yaml(Tree, tmp_path / "latin")
