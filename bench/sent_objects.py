"""Radiographs to send: written once, and made new objects again before each round."""

import time
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

_PREFIX = "1.2.826.0.1.3680043.8.498."
_UID_BYTES = 60


class SentObjects:
    """Objects of one size in a folder for each sender, a study each unless told otherwise.

    UIDs have a fixed length, so that a new round overwrites them where they stand: every server
    gets the same files, and no server has seen any of them before.
    """

    def __init__(self, root: Path, *, senders: int, count: int, side: int, one_study: bool) -> None:
        self.folders = [root / f"{sender}" for sender in range(senders)]
        self.size_bytes = 0
        self._one_study = one_study
        self._files: list[tuple[Path, list[tuple[int, int]]]] = []
        rng = np.random.default_rng(side)
        for sender, folder in enumerate(self.folders):
            folder.mkdir(parents=True)
            for number in range(count // senders):
                path = folder / f"{number:04}.dcm"
                self._write(path, rng, side, sender if one_study else len(self._files))
                self._files.append((path, _places(path.read_bytes())))
        self.size_bytes = self._files[0][0].stat().st_size

    def __len__(self) -> int:
        return len(self._files)

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [path for path, _ in self._files]

    def renew(self) -> None:
        """Give every object UIDs that nobody has seen."""
        run = time.time_ns()
        for number, (path, places) in enumerate(self._files):
            study = path.parent.name if self._one_study else number
            with path.open("r+b") as file:
                for offset, kind in places:
                    group = study if kind in (2, 3) else number
                    uid = f"{_PREFIX}{run}{kind}{int(group):06}".ljust(_UID_BYTES, "1")
                    file.seek(offset)
                    file.write(uid.encode())

    def _write(self, path: Path, rng: np.random.Generator, side: int, patient: int) -> None:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
        for kind, keyword in enumerate(
            ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"), start=1
        ):
            setattr(dataset, keyword, f"{_PREFIX}{kind}".ljust(_UID_BYTES, "9"))
        dataset.PatientID, dataset.Modality = f"BENCH{patient}", "DX"
        dataset.StudyDate = time.strftime("%Y%m%d")
        dataset.Rows = dataset.Columns = side
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        dataset.PixelData = rng.integers(0, 4096, (side, side), dtype=np.uint16).tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.save_as(path, enforce_file_format=True)


def _places(content: bytes) -> list[tuple[int, int]]:
    """Find where each UID stands, in the file meta too: offset, and 1, 2 or 3 for its kind."""
    found = []
    for kind in (1, 2, 3):
        uid = f"{_PREFIX}{kind}".ljust(_UID_BYTES, "9").encode()
        offset = content.find(uid)
        while offset >= 0:
            found.append((offset, kind))
            offset = content.find(uid, offset + 1)
    return found
