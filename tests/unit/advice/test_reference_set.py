"""The reference set: made, written, read back, and the one that is shipped."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from autotl.advice.reference_set import load_reference_set, make_reference_set, save_reference_set
from autotl.errors import SettingsError
from autotl.models.catalog import find_entry


def test_a_reference_set_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    names = tuple(f"Klasse {place} ü" for place in range(20))
    made = make_reference_set("ImageNet-1k", "resnet18.a1_in1k", raw, names)
    save_reference_set(made, tmp_path / "reference.npz")
    read = load_reference_set(tmp_path / "reference.npz")
    assert (read.name, read.backbone, read.class_names) == ("ImageNet-1k", "resnet18.a1_in1k", names)
    assert read.squared_bandwidth == made.squared_bandwidth
    assert read.weights_sha256 == ""
    assert read.embeddings.dtype == np.float32
    np.testing.assert_array_equal(read.embeddings, made.embeddings)


def test_a_reference_set_keeps_the_checksum_of_the_model_that_made_it_and_is_written_whole(tmp_path: Path) -> None:
    made = make_reference_set("a", "b", np.eye(20, dtype=np.float32), ("x",) * 20)
    save_reference_set(replace(made, weights_sha256="abc"), tmp_path / "reference.npz")
    assert load_reference_set(tmp_path / "reference.npz").weights_sha256 == "abc"
    assert [path.name for path in tmp_path.iterdir()] == ["reference.npz"]


def test_rows_are_scaled_to_length_one() -> None:
    made = make_reference_set("a", "b", np.array([[3.0, 4.0], [0.0, 0.1]], dtype=np.float32), ("x", "y"))
    np.testing.assert_allclose(made.embeddings, [[0.6, 0.8], [0.0, 1.0]], atol=1e-3)


def test_bandwidth_is_the_median_squared_distance() -> None:
    # Squared distances between the corners of a square on the circle: 2 four times, 4 twice.
    corners = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    assert make_reference_set("a", "b", corners, tuple("wxyz")).squared_bandwidth == pytest.approx(2.0)
    # One more copy of the first corner: 0 once, 2 six times, 4 three times.
    assert make_reference_set("a", "b", corners[[0, 2]], tuple("xy")).squared_bandwidth == pytest.approx(4.0)


def test_the_bandwidth_of_images_that_are_nearly_the_same_is_that_of_their_differences() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=200) + 0.01 * generator.normal(size=(20, 200))
    made = make_reference_set("a", "b", rows.astype(np.float32), ("x",) * 20)
    pairs = pdist(made.embeddings.astype(np.float64), "sqeuclidean")
    assert made.squared_bandwidth == pytest.approx(float(np.median(pairs)), rel=1e-9)
    assert made.squared_bandwidth == pytest.approx(2e-4, rel=0.2)


@pytest.mark.parametrize(("copies", "fine"), [(20, False), (15, False), (14, True)])  # 190, 105, 91 of 190 pairs
def test_copies_make_no_reference_set_where_half_of_the_pairs_are_the_same(copies: int, fine: bool) -> None:
    generator = np.random.default_rng(0)
    raw = generator.normal(size=(20, 1280))
    raw[:copies] = raw[0] * (1 + 1e-6 * generator.normal(size=(copies, 1280)))  # embedded in other batches
    if fine:
        assert make_reference_set("a", "b", raw.astype(np.float32), ("x",) * 20).squared_bandwidth > 1.0
    else:
        with pytest.raises(ValueError, match="half of the pairs of images, or more, look the same to the model"):
            make_reference_set("a", "b", raw.astype(np.float32), ("x",) * 20)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_embeddings_without_information_make_no_reference_set(value: float) -> None:
    with pytest.raises(ValueError, match="look the same"):
        make_reference_set("a", "b", np.full((20, 5), value, dtype=np.float32), ("x",) * 20)


def test_the_file_of_weights_has_to_be_the_one_that_made_the_embeddings(tmp_path: Path) -> None:
    weights, file = tmp_path / "w.pth", tmp_path / "reference.npz"
    weights.write_bytes(b"then")
    made = make_reference_set("a", f"resnet18.a1_in1k={weights}", np.eye(20, dtype=np.float32), ("x",) * 20)
    checksum = hashlib.sha256(b"then").hexdigest()
    save_reference_set(replace(made, file_sha256=checksum), file)
    assert load_reference_set(file).file_sha256 == checksum
    weights.write_bytes(b"now")
    with pytest.raises(SettingsError) as caught:
        load_reference_set(file)
    (problem,) = caught.value.problems
    assert (problem.where, problem.found) == (
        f"reference {file}",
        f"{weights} holds other weights now than those that made it",
    )
    assert problem.remedy == "put those weights back, or build the reference set again"
    weights.unlink()  # reported where the backbone is looked up, as in any other place
    assert load_reference_set(file).backbone == f"resnet18.a1_in1k={weights}"


def test_the_shipped_reference_set_is_sound() -> None:
    shipped = load_reference_set()
    assert shipped.name == "ImageNet-1k"
    assert len(shipped.class_names) == len(shipped.embeddings) > 100
    np.testing.assert_allclose(np.linalg.norm(shipped.embeddings, axis=1), 1, atol=2e-3)
    pairs = pdist(shipped.embeddings, "sqeuclidean")
    assert shipped.squared_bandwidth == pytest.approx(float(np.median(pairs)), rel=1e-3)


def test_the_shipped_reference_set_was_made_by_a_backbone_that_is_bundled() -> None:
    assert find_entry(load_reference_set().backbone).weights == "bundled"


def test_a_missing_reference_set_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file") as caught:
        load_reference_set(tmp_path / "nreference.npz")
    assert str(tmp_path / "nreference.npz") in caught.value.problems[0].where


def damaged(**changes: Any) -> dict[str, Any]:
    """The arrays of a sound reference set, with changes; None leaves one out."""
    rows = np.eye(20, dtype=np.float16)
    sound = {
        "name": "a",
        "backbone": "b",
        "embeddings": rows,
        "class_names": np.array(["x"] * 20),
        "squared_bandwidth": 2.0,
    }
    return {key: value for key, value in (sound | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"class_names": None}, "cannot be read (KeyError"),
        ({"class_names": np.array(["x"] * 19)}, "holds 20 photographs, 19 names"),
        ({"embeddings": np.eye(19, dtype=np.float16)}, "holds 19 photographs, 20 names"),
        ({"embeddings": np.zeros(20)}, "holds no table"),
        ({"embeddings": np.full((20, 3), np.nan)}, "not of length 1"),
        ({"embeddings": np.full((20, 3), 2.0)}, "not of length 1"),
        ({"embeddings": np.full((20, 3), "x")}, "holds no table"),
        ({"squared_bandwidth": 0.0}, "no bandwidth above 0"),
        ({"squared_bandwidth": np.inf}, "no bandwidth above 0"),
        ({"embeddings": np.eye(20)[[3] * 20], "squared_bandwidth": 5e-5}, "half of the pairs, or more, are the same"),
        ({"class_names": np.array([{"a": 1}] * 20, dtype=object)}, "cannot be read (ValueError"),
    ],
)
def test_a_file_that_is_no_reference_set_is_a_problem(tmp_path: Path, changes: dict[str, Any], found: str) -> None:
    np.savez(tmp_path / "reference.npz", **damaged(**changes))
    with pytest.raises(SettingsError) as caught:
        load_reference_set(tmp_path / "reference.npz")
    assert found in caught.value.problems[0].found


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", **damaged())
    assert load_reference_set(tmp_path / "reference.npz").squared_bandwidth == 2.0


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "old.npz", **damaged(backbone="resnet18.a1_in1k=w.pth"))
    read = load_reference_set(tmp_path / "old.npz")
    assert (read.backbone, read.weights_sha256, read.file_sha256) == ("resnet18.a1_in1k=w.pth", "", "")


def test_a_file_that_is_truncated_or_holds_another_thing_is_a_problem(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", **damaged())
    whole = (tmp_path / "whole.npz").read_bytes()
    np.save(tmp_path / "array.npy", np.eye(3))
    contents = {
        "truncated": whole[: len(whole) // 2],
        "text": b"a,b\n1,2\n",
        "array": (tmp_path / "array.npy").read_bytes(),
    }
    contents["spoilt"] = whole[:200] + bytes(100) + whole[300:]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SettingsError, match="cannot be read"):
            load_reference_set(tmp_path / name)
