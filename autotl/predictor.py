"""A saved model, ready to predict. Needs neither Ray, Optuna nor the training data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from autotl.compute.device import pick_device
from autotl.compute.memory import halve_until_it_fits
from autotl.data.augment import eval_view
from autotl.data.decode import IMAGE_SUFFIXES, decode
from autotl.errors import BackboneError, DatasetError, ModelFileError, Problem, raise_if_any
from autotl.models.backbone import Preprocessing, create
from autotl.storage.saved_model import ModelCard, load_card, load_finite_weights

BATCH, GPU_BATCH = 32, 128


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        path: the file.
        label: the most probable class.
        probability: of that class.
        probabilities: by class, summing to 1.
    """

    path: str
    label: str
    probability: float
    probabilities: dict[str, float]


class Predictor:
    """The best model of a run, on a GPU where there is one. Made by `load_predictor`, or taken from a `FitResult`."""

    def __init__(self, card: ModelCard, model: torch.nn.Module, preprocessing: Preprocessing) -> None:
        self.card = card
        self.device = pick_device()
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.preprocessing = preprocessing
        self._batch = BATCH if self.device.type == "cpu" else GPU_BATCH

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the columns of `probabilities`."""
        return self.card.classes

    def predict(self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Prediction]:
        """Classify image files.

        Args:
            paths: a file, a folder (all images below it), or several of these.

        Returns:
            One prediction an image, in the order given; a folder's images in the order of their paths.

        Raises:
            DatasetError: if anything named does not exist or cannot be decoded; all such files are listed.
        """
        files = find_images([paths] if isinstance(paths, str | os.PathLike) else list(paths))
        predictions = []
        for file, row in zip(files, self.probabilities(files), strict=True):
            by_class = {name: float(value) for name, value in zip(self.classes, row, strict=True)}
            best = int(row.argmax())
            predictions.append(Prediction(str(file), self.classes[best], float(row[best]), by_class))
        return predictions

    def probabilities(self, files: Sequence[Path]) -> NDArray[np.float32]:
        """Class probabilities of image files, shape (files, classes), computed in float32.

        Raises:
            DatasetError: if a file cannot be decoded; all such files are listed.
        """
        rows = [np.zeros((0, len(self.classes)), dtype=np.float32)]
        problems: list[Problem] = []
        for start in range(0, len(files), BATCH):
            pixels, found = self._decode(files[start : start + BATCH])
            problems += found
            if not problems:  # once a file is damaged, the rest is only looked through for others
                rows.append(self.probabilities_of_pixels(pixels))
        raise_if_any(problems)
        return np.concatenate(rows)

    def probabilities_of_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities of decoded images, shape (images, classes), computed in float32.

        Args:
            pixels: squares as `autotl.data.decode.decode` makes them at the model's `store_size`, shape
                (images, store_size, store_size, 3).
        """
        found, self._batch = halve_until_it_fits(self._batch, lambda size: self._in_batches(pixels, size))
        return found

    def _in_batches(self, pixels: NDArray[np.uint8], n_images: int) -> NDArray[np.float32]:
        rows = [np.zeros((0, len(self.classes)), dtype=np.float32)]
        size, crop = self.preprocessing.input_size, self.preprocessing.crop
        with torch.inference_mode():
            for start in range(0, len(pixels), n_images):
                chosen = np.arange(start, min(start + n_images, len(pixels)))
                if start and self.device.type == "cuda":  # for a batch of another size it would choose kernels anew
                    chosen = np.pad(chosen, (0, n_images - len(chosen)), mode="edge")
                batch = torch.from_numpy(np.array(pixels[chosen])).to(self.device)
                views = eval_view(batch, size, crop)
                images = self.preprocessing.normalise(views).contiguous(memory_format=torch.channels_last)
                rows.append(torch.softmax(self.model(images).float(), dim=1).cpu().numpy())
        return np.concatenate(rows)[: len(pixels)]

    def _decode(self, files: Sequence[Path]) -> tuple[NDArray[np.uint8], list[Problem]]:
        """The pixels of the files that can be decoded, and a problem for each that cannot."""
        size = self.preprocessing.store_size
        images, problems = [np.zeros((0, size, size, 3), dtype=np.uint8)], []
        for file in files:
            try:
                images.append(decode(file, size)[0][None])
            except OSError as error:
                problems.append(Problem("dataset", str(file), f"unreadable image: {error}"))
        return np.concatenate(images), problems


def find_images(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The image files meant by `paths`; a folder stands for all images below it.

    Raises:
        DatasetError: if something does not exist, or a folder holds no image; all of these are listed.
    """
    files: list[Path] = []
    problems = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_visible_image(file, path))
            files += inside
            if not inside:
                problems.append(Problem("dataset", str(path), "holds no images"))
        elif path.exists():
            files.append(path)
        else:
            problems.append(Problem("dataset", str(path), "no such file"))
    if problems:
        raise DatasetError(problems)
    return files


def _is_visible_image(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix.lower() in IMAGE_SUFFIXES and not hidden and file.is_file()


def load_predictor(folder: Path) -> Predictor:
    """Load the model saved in `folder` (a run folder's `model/`).

    Raises:
        ModelFileError: if it is missing, damaged, of a newer format, or does not fit its architecture.
    """
    card = load_card(folder)
    state: dict[str, Any] = load_finite_weights(folder, card)
    try:
        backbone = create(card.backbone, len(card.classes), None)
        backbone.model.load_state_dict(state)
    except BackboneError as error:
        found = f"timm {timm.__version__} does not know {card.backbone}"
        raise ModelFileError(f"{folder}: {found}\n    → install timm {card.timm_version}") from error
    except RuntimeError as error:
        raise ModelFileError(f"{folder}: the weights do not fit {card.backbone} ({error})") from error
    return Predictor(card, backbone.model, Preprocessing.from_json(card.preprocessing))
