"""What a failing disk does to an object on its way in."""

from pathlib import Path

import pytest

from common.archive import Archive
from common.errors import StorageUnavailableError
from dicom_listener.reception import Announced, Reception, Room


def test_a_disk_that_refuses_even_to_forget_a_name_is_told_and_never_raises(tmp_path: Path) -> None:
    file = tmp_path / "no folder"
    file.touch()
    announced = Announced("1.2", "1.2.3", "1.2", "1.2.840.10008.1.2", "CT1")

    reception = Reception(str(file / "object.dcm"), Room(Archive(tmp_path), 0), announced)
    reception.write(b"bytes that are read and dropped")
    with pytest.raises(StorageUnavailableError, match="Not a directory"):
        reception.finish()
    reception.discard()
