"""Seeds for the fuzzers: small valid objects in every transfer syntax, made here."""

import tempfile
from pathlib import Path

from pydicom.uid import JPEGExtended12Bit

from tests.integration.listener.conftest import data_set_bytes
from tests.radiographs import LOSSLESS, NATIVE, make_exposure, make_radiograph, write_radiograph
from tests.raw_peer import store_command


def make_corpus() -> dict[str, list[bytes]]:
    """Give each target's seeds."""
    exposure = make_exposure(12, (12, 10))
    headers, pixels = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, syntax in enumerate((*LOSSLESS, JPEGExtended12Bit)):
            dataset = make_radiograph(exposure, 12, PatientID="P1", PatientName="A^B")
            file = write_radiograph(dataset, Path(folder) / f"{number}.dcm", syntax)
            pixels.append(file.read_bytes())
            if syntax in NATIVE:
                headers.append(bytes([NATIVE.index(syntax)]) + data_set_bytes(file))
    uids = [
        store_command("1.2.840.10008.5.1.4.1.1.1", "1.2.826.0.1.3680043.8.498.1"),
        *(b"objects/ab/abcd.dcm", b"../../etc/passwd", b"/etc/passwd", b"1.2.840.10008.1.1"),
    ]
    return {"header": headers, "pixels": pixels, "uid": uids}
