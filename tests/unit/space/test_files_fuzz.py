"""Whatever a TOML file holds: a search space that can be written and read again, or a SpaceError."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autotl.errors import SpaceError
from autotl.space.files import load_space, shipped_names, space_from_plain, spaces_dir, to_toml
from autotl.space.search_space import PARAMETERS, SearchSpace

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5)
PLAIN = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
KEYS = ("low", "high", "log", "choices", "when")


def attempt(call: Callable[[], SearchSpace]) -> SearchSpace | SpaceError:
    """The space, or the error by which it is refused."""
    try:
        return call()
    except SpaceError as error:
        return error


def read(plain: Any) -> SearchSpace | None:
    """The space, or None where it is refused; every problem then says something."""
    came = attempt(lambda: space_from_plain(plain, "here"))
    if isinstance(came, SearchSpace):
        return came
    assert came.problems
    assert all(problem.found for problem in came.problems)
    return None


def shipped(name: str) -> dict[str, Any]:
    return tomllib.loads((spaces_dir() / f"{name}.toml").read_text("utf-8"))


@given(st.dictionaries(st.text(max_size=9) | st.sampled_from(["name", "parameters", *PARAMETERS]), PLAIN, max_size=6))
def test_any_tables_are_read_or_refused(plain: dict[str, Any]) -> None:
    assert read(plain) is None  # it would be a wonder


@given(st.sampled_from(shipped_names()), st.sampled_from(PARAMETERS), st.sampled_from(KEYS), PLAIN)
def test_a_shipped_space_with_another_value_is_read_or_refused(name: str, parameter: str, key: str, value: Any) -> None:
    plain = shipped(name)
    holder = plain.get("parameters", plain)
    if not isinstance(holder.get(parameter), dict):
        return
    holder[parameter][key] = value
    space = read(plain)
    if space is not None:
        assert space_from_plain(tomllib.loads(to_toml(space)), "again").to_plain() == space.to_plain()


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "space.toml"
        path.write_bytes(content)
        came = attempt(lambda: load_space(str(path)))
        assert isinstance(came, SpaceError)  # a space would be a wonder
        assert str(path) in str(came)
