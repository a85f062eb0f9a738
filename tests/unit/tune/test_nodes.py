"""What is wrong with the nodes of a cluster, in one message that names them."""

from __future__ import annotations

from typing import Any

from autotl.tune.nodes import problems_of

HERE = {"autotl": "0.1.0", "torch": "2.9"}


def answer(**changes: Any) -> dict[str, Any]:
    return {"missing": [], "writable": True, "versions": HERE} | changes


def test_nodes_that_see_the_run_and_have_the_same_packages_are_fine() -> None:
    assert problems_of({"one": answer(), "two": answer()}, HERE) == []


def test_everything_that_is_wrong_is_told_by_node() -> None:
    answers = {
        "one": answer(missing=["/shared/run", "/shared/run/cache/pixels.u8"]),
        "two": answer(writable=False, versions={"autotl": "0.0.9"}),
        "three": None,
        "four": "ModuleNotFoundError: No module named 'numpy'",
        "five": answer(),
    }
    assert problems_of(answers, HERE) == [
        "  - one: does not see /shared/run, /shared/run/cache/pixels.u8 → put it on storage that all nodes share, at "
        "the same path",
        "  - two: cannot write to the run folder → give the user that Ray runs as the right to",
        "  - two: has autotl 0.0.9, here it is 0.1.0 → install the same",
        "  - two: has torch none, here it is 2.9 → install the same",
        "  - three: did not answer in 60 s",
        "  - four: ModuleNotFoundError: No module named 'numpy'",
    ]
