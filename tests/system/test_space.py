"""Free space is looked at before much is written."""

from pathlib import Path

import pytest

from optkit.errors import OutputError
from optkit.system.space import check_space


def test_too_little_room_is_refused_before_the_folder_exists(tmp_path: Path) -> None:
    check_space(tmp_path / "new", 1, "a model")
    with pytest.raises(
        OutputError, match=r"new: the disk has [\d.]+ MiB left; a model needs \d+\.0 MiB. Free some space"
    ):
        check_space(tmp_path / "new", 1 << 60, "a model")
    assert list(tmp_path.iterdir()) == []
