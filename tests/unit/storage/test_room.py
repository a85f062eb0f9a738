"""Room on the disk that is really there, and a clear word where there is none."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from autotl.errors import RunFolderError
from autotl.storage.room import reserve


def test_a_reserved_file_is_not_sparse(tmp_path: Path) -> None:
    reserve(tmp_path / "file", 2**20, "2 images")
    status = (tmp_path / "file").stat()
    assert (status.st_size, status.st_blocks * 512 >= 2**20) == (2**20, True)


def test_a_file_that_is_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"something")
    reserve(tmp_path / "file", 4, "1 image")
    assert (tmp_path / "file").read_bytes() == bytes(4)


def test_a_full_disk_is_one_clear_error_and_leaves_no_file(tmp_path: Path) -> None:
    size = shutil.disk_usage(tmp_path).total * 2
    with pytest.raises(
        RunFolderError, match=r"the disk is full: 7 images take [\d.]+ GiB, and [\d.]+ \w+ are free"
    ) as e:
        reserve(tmp_path / "file", size, "7 images")
    assert "--output" in str(e.value)
    assert not (tmp_path / "file").exists()


def test_without_a_call_that_reserves_the_free_room_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    reserve(tmp_path / "file", 2**20, "2 images")
    assert (tmp_path / "file").stat().st_size == 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20 - 1))
    with pytest.raises(RunFolderError, match="2 images take 1 MiB, and 1 MiB are free"):
        reserve(tmp_path / "file", 2**20, "2 images")


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as found:
        reserve(tmp_path / "gone" / "file", 4, "1 image")
    assert found.value.errno == errno.ENOENT
