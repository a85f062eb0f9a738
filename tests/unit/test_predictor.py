"""Predicting with a saved model: files, folders, what cannot be read, and a fresh process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from autotl.data.decode import decode
from autotl.errors import DatasetError, ModelFileError
from autotl.models.backbone import Preprocessing, create
from autotl.predictor import Predictor, find_images, load_predictor
from autotl.records import Estimate
from autotl.storage.saved_model import ModelCard, load_card, save_model

CLASSES = ("circle", "square", "triangle")
PREPROCESSING = Preprocessing(40, 0.8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 50)


def card(**changes: object) -> ModelCard:
    plain = ModelCard(
        backbone="mobilenetv3_small_050",
        classes=CLASSES,
        preprocessing=PREPROCESSING.to_json(),
        freeze_depth=None,
        metric="accuracy",
        score=0.5,
        log_loss=1.0,
        validation=Estimate(0.5, 0.4, 0.6, 10),
        trial_id="t",
        epoch=1,
        config={},
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with random weights, whose classifier is large enough for clear answers."""
    torch.manual_seed(0)
    model = create("mobilenetv3_small_050", 3, None).model
    with torch.no_grad():
        model.classifier.weight.normal_(0.0, 0.5)
    folder = tmp_path_factory.mktemp("run") / "model"
    save_model(folder, model.state_dict(), card())
    return folder


@pytest.fixture(scope="module")
def predictor(saved_model: Path) -> Predictor:
    return load_predictor(saved_model)


class Redness(torch.nn.Module):
    """Logits that are known: the mean of the normalised red channel, its negative, and 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red = x[:, 0].mean(dim=(1, 2))
        return torch.stack([red, -red, torch.zeros_like(red)], dim=1)


def test_probabilities_of_a_known_model(tmp_path: Path) -> None:
    Image.new("RGB", (60, 50), (255, 0, 0)).save(tmp_path / "red.png")
    Image.new("RGB", (60, 50), (0, 255, 0)).save(tmp_path / "green.png")
    red, green = Predictor(card(), Redness(), PREPROCESSING).predict([tmp_path / "red.png", tmp_path / "green.png"])
    # Normalised red is (1 - 0.5) / 0.25 = 2 in the first and -2 in the second: softmax of (2, -2, 0).
    assert list(red.probabilities) == list(CLASSES)
    assert list(red.probabilities.values()) == pytest.approx([0.86681, 0.01588, 0.11731], abs=1e-4)
    assert (red.label, red.probability) == ("circle", pytest.approx(0.86681, abs=1e-4))
    assert (green.label, green.probability) == ("square", pytest.approx(0.86681, abs=1e-4))


def test_a_file(predictor: Predictor, shapes: Path) -> None:
    path = shapes / "circle" / "03.png"
    (prediction,) = predictor.predict(path)
    assert prediction.path == str(path)
    assert predictor.predict(str(path)) == [prediction]
    assert prediction.label in CLASSES
    assert prediction.probability == max(prediction.probabilities.values())
    assert prediction.probabilities[prediction.label] == prediction.probability
    assert sum(prediction.probabilities.values()) == pytest.approx(1.0, abs=1e-5)


def test_a_folder_stands_for_all_images_below_it_in_order_of_their_paths(predictor: Predictor, shapes: Path) -> None:
    predictions = predictor.predict(shapes)
    assert [prediction.path for prediction in predictions] == [
        str(shapes / kind / f"{number:02d}.png") for kind in CLASSES for number in range(12)
    ]


def test_several_things_in_the_order_given(predictor: Predictor, shapes: Path) -> None:
    first, second = shapes / "square" / "01.png", shapes / "circle" / "00.png"
    assert [prediction.path for prediction in predictor.predict([first, second])] == [str(first), str(second)]
    mixed = predictor.predict([first, shapes / "triangle"])
    assert [prediction.path for prediction in mixed] == [
        str(first),
        *(str(shapes / f"triangle/{n:02d}.png") for n in range(12)),
    ]


def test_more_images_than_a_batch_get_the_answers_they_get_alone(predictor: Predictor, shapes: Path) -> None:
    predictions = predictor.predict(shapes)  # 36 images, batches of 32
    for place in (0, 31, 32, 35):
        (alone,) = predictor.predict(predictions[place].path)
        assert alone.label == predictions[place].label
        assert alone.probability == pytest.approx(predictions[place].probability, abs=1e-5)


def test_answers_depend_on_the_image(predictor: Predictor, shapes: Path) -> None:
    assert len({round(prediction.probability, 5) for prediction in predictor.predict(shapes)}) > 10


def test_nothing_gives_nothing(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert predictor.probabilities([]).shape == (0, 3)


def test_decoded_pixels_give_what_their_file_gives(predictor: Predictor, shapes: Path) -> None:
    path = shapes / "circle" / "00.png"
    pixels = decode(path, PREPROCESSING.store_size)[0][None]
    np.testing.assert_allclose(predictor.probabilities_of_pixels(pixels), predictor.probabilities([path]), atol=1e-6)


def test_unreadable_files_are_all_listed(predictor: Predictor, shapes: Path, tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        (tmp_path / name).write_text("x")
    with pytest.raises(DatasetError) as caught:
        predictor.predict([tmp_path / "b.png", shapes / "circle", tmp_path / "a.jpg"])
    assert [problem.where for problem in caught.value.problems] == [str(tmp_path / "b.png"), str(tmp_path / "a.jpg")]
    text = str(caught.value)
    assert text.startswith("Found 2 problems in the input:\n")
    assert f"{tmp_path / 'a.jpg'}: unreadable image: cannot identify image file" in text


def test_unreadable_files_are_all_listed_beyond_the_first_batch(
    predictor: Predictor, shapes: Path, tmp_path: Path
) -> None:
    (tmp_path / "first.png").write_text("x")
    (tmp_path / "last.png").write_text("x")
    files = [tmp_path / "first.png", *sorted(shapes.rglob("*.png")), tmp_path / "last.png"]  # 38 files
    expected = [str(tmp_path / "first.png"), str(tmp_path / "last.png")]
    for ask in (predictor.predict, predictor.probabilities):
        with pytest.raises(DatasetError) as caught:
            ask(files)
        assert [problem.where for problem in caught.value.problems] == expected


def test_missing_files_and_empty_folders_are_all_listed(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError) as caught:
        predictor.predict([tmp_path / "gone.png", tmp_path / "empty", tmp_path / "lost.png"])
    assert [(problem.where, problem.found) for problem in caught.value.problems] == [
        (str(tmp_path / "gone.png"), "no such file"),
        (str(tmp_path / "empty"), "holds no images"),
        (str(tmp_path / "lost.png"), "no such file"),
    ]


def test_other_files_in_a_folder_are_passed_over(tmp_path: Path, shapes: Path) -> None:
    shutil.copy(shapes / "circle/00.png", tmp_path / "A.PNG")
    (tmp_path / "notes.txt").write_text("x")
    assert find_images([tmp_path]) == [tmp_path / "A.PNG"]


def test_loading_gives_the_card_and_its_classes(predictor: Predictor) -> None:
    assert predictor.classes == CLASSES
    assert predictor.preprocessing == PREPROCESSING
    assert predictor.card.backbone == "mobilenetv3_small_050"
    assert not predictor.model.training


def test_loading_where_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"model\.json: cannot be read \(FileNotFoundError"):
        load_predictor(tmp_path)


def test_weights_that_do_not_fit_the_architecture_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, {"w": torch.zeros(2)}, card())
    with pytest.raises(ModelFileError) as caught:
        load_predictor(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: the weights do not fit mobilenetv3_small_050 (")


@pytest.mark.parametrize("name", ["hf-hub:somebody/net", "hf_hub:somebody/net", "local-dir:/tmp/net", "no_such_net.x"])
def test_an_architecture_that_is_not_timms_own_is_refused_without_asking_the_network(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *arguments, **options: pytest.fail("it may ask the network"))
    save_model(tmp_path, {"weight": torch.zeros(2)}, card(backbone=name))
    with pytest.raises(ModelFileError, match=r"allowed: the name of a timm model|does not know no_such_net\.x"):
        load_predictor(tmp_path)


def test_a_fresh_process_gives_the_same_probabilities_without_the_search(
    predictor: Predictor, saved_model: Path, shapes: Path
) -> None:
    files = [shapes / kind / "05.png" for kind in CLASSES]
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from autotl.predictor import load_predictor\n"
        "predictor = load_predictor(Path(sys.argv[1]))\n"
        "rows = predictor.probabilities([Path(name) for name in sys.argv[2:]]).tolist()\n"
        "loaded = [name for name in ('ray', 'optuna', 'sklearn') if name in sys.modules]\n"
        "print(json.dumps([rows, loaded]))"
    )
    command = [sys.executable, "-c", code, str(saved_model), *map(str, files)]
    rows, loaded = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert loaded == []
    np.testing.assert_allclose(rows, predictor.probabilities(files), atol=1e-4)
    assert load_card(saved_model).classes == CLASSES
