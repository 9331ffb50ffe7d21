"""The YAML reader: what it accepts, where values come from, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config import tree
from pimsim.config.emit import emit_yaml
from pimsim.config.errors import InputError
from pimsim.config.resources import KINDS, preset_names, preset_path
from pimsim.config.tree import (
    MAX_ALIASES,
    MAX_DEPTH,
    MAX_FILE_BYTES,
    MAX_NODES,
    lookup,
    merge,
    parse_text,
    plain,
    read_top,
    read_tree,
)


def test_scalars_follow_yaml_1_2() -> None:
    text = "{a: 1, b: 1e3, c: 0x10, d: 010, e: true, f: on, g: 12:30, h: ~, i: '1', j: .5, k: }"
    assert plain(parse_text(text, "t")) == {
        "a": 1,
        "b": 1000.0,
        "c": 16,
        "d": 10,
        "e": True,
        "f": "on",
        "g": "12:30",
        "h": None,
        "i": "1",
        "j": 0.5,
        "k": None,
    }


def test_every_value_knows_its_line() -> None:
    root = parse_text("a:\n  b: 1\n  c:\n    - 2\n    - {d: 3}\n", "f.yaml")
    origins = {
        path: lookup(root, path)[0].origin
        for path in [("a",), ("a", "b"), ("a", "c"), ("a", "c", 0), ("a", "c", 1, "d")]
    }
    assert [origin.rpartition(":")[2] for origin in origins.values()] == ["1", "2", "3", "4", "5"]
    assert all(origin.startswith("f.yaml:") for origin in origins.values())


def test_a_lookup_of_what_is_not_there_ends_at_the_nearest_ancestor() -> None:
    root = parse_text("a:\n  b: 1\n", "f")
    assert lookup(root, ("a", "x", "y")) == (lookup(root, ("a",))[0], 1)


def test_an_alias_repeats_its_anchor() -> None:
    assert plain(parse_text("a: &x {b: 1}\nc: *x\n", "t")) == {"a": {"b": 1}, "c": {"b": 1}}


def test_merging_goes_key_by_key_and_replaces_lists() -> None:
    base = parse_text("{m: {a: 1, b: [1, 2]}, n: 1}", "base")
    over = parse_text("{m: {b: [3]}, n: {x: 1}}", "over")
    merged = merge(base, over)
    assert plain(merged) == {"m": {"a": 1, "b": [3]}, "n": {"x": 1}}
    assert lookup(merged, ("m", "a"))[0].origin == "base:1"
    assert lookup(merged, ("m", "b"))[0].origin == "over:1"


def _laughs(levels: int) -> str:
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3: duplicate key 'a', first in line 1"),
        ("a: {b: 1, b: 2}", "f:1: duplicate key 'b', first in line 1"),
        ("a: .nan", "f:1: found .nan; a finite number is expected"),
        ("\na: -.inf", "f:2: found -.inf; a finite number is expected"),
        ("a: 1e999", "f:1: found 1e999; a finite number is expected"),
        ("a: " + "9" * 5000, "f:1: a number of 5000 characters is too long"),
        ("a: 0x" + "f" * 5000, "f:1: a number of 5002 characters is too long"),
        ("a: !!python/object/apply:os.system [ls]", "tags are not allowed"),
        ("a: 1\n<<: {b: 1}", "f:2: merge key '<<' found; use 'extends' instead"),
        ("? [1]\n: 2", "f:1: a key must be plain text"),
        ("a: 1\n---\nb: 2", "f:2: a second document starts; one is allowed"),
        ("a: *x", "f:1: alias *x names no anchor before it"),
        ("a: &x [*x]", "f:1: alias *x names no anchor before it"),
        ("a: {", "not valid YAML"),
        ("a: b\n\tc: d", "f:2: not valid YAML"),
        ("a: \x00", "not valid YAML"),
        (_laughs(8), f"more than {MAX_NODES} values with aliases expanded"),
        ("a: &x 1\nb: [" + ", ".join(["*x"] * (MAX_ALIASES + 1)) + "]", "more than 100 aliases"),
        ("a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than 32 levels deep"),
        ("[" * 100_000, "f:1: "),
    ],
)
@pytest.mark.parametrize("loader", [yaml.SafeLoader, tree._LOADER])
def test_what_is_refused_is_named_with_its_line(
    text: str, message: str, loader: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_LOADER", loader)
    with pytest.raises(InputError) as caught:
        parse_text(text, "f")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- 1\n", "the top level must be a mapping"),
        (b"text\n", "the top level must be a mapping"),
        (b"b: 1\na: \xff\n", ":2: not UTF-8 text (byte 8, 0xff)"),
        (b"a: 1\n" + b"#" * MAX_FILE_BYTES, f"larger than {MAX_FILE_BYTES} bytes"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_tree(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_tree(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is a directory"):
        read_tree(tmp_path)


def test_the_top_of_a_file_is_read_as_far_as_the_keys_that_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("x: &k {b: 1}\na: *k\nlist: [1, 2]\nb: 'two'\nbroken: [\n")
    assert read_top(path, ("b", "a")) == {"a": {"b": 1}, "b": "two"}
    assert read_top(path, ("list", "nowhere")) == {"list": [1, 2]}
    with pytest.raises(InputError, match=r"a\.yaml:6: not valid YAML"):
        read_top(path, ("broken",))
    path.write_text("{inner: {b: 1}, a: [b]}")  # ``b`` is a key, but of no top level
    assert read_top(path, ("a", "b")) == {"a": ["b"]}
    path.write_text("- b")
    assert read_top(path, ("b",)) == {}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind][1] == ".yaml"])
def test_the_top_of_every_preset_is_that_of_the_whole(kind: str) -> None:
    for name in preset_names(kind):
        whole = plain(read_tree(preset_path(kind, name)))
        assert isinstance(whole, dict)
        for keys in (("description", "source"), ("extends",), ("layers", "kv_heads")):
            expected = {key: whole[key] for key in keys if key in whole}
            assert read_top(preset_path(kind, name), keys) == expected


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert plain(read_tree(path)) == {"a": 1}


_TEXT = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff\x85\u2028\u2029\ufeff"
    )
)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
)
_KEYS = _TEXT.filter(lambda key: key != "<<")
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_KEYS, _VALUES, min_size=1, max_size=5))
def test_emitted_yaml_reads_back_to_the_same_values(values: dict[str, object]) -> None:
    assert plain(parse_text(emit_yaml(values), "t")) == values


@given(st.dictionaries(_KEYS, _VALUES, min_size=1, max_size=5))
def test_comments_do_not_change_what_is_read(values: dict[str, object]) -> None:
    text = emit_yaml(values, comment=lambda path: "x.yaml:1")
    assert plain(parse_text(text, "t")) == values
