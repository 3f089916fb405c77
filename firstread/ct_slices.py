"""Decode the slices of a CT series in children, a bounded number ahead of the model."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UnreadablePixelsError
from common.settings import Settings
from model.bundles import Bundle
from model.ct.series import CtSeries
from model.ct.slice_examination import examine_slice, has_air
from model.eligibility import Policy
from model.examination import Examined
from model.preprocessing import Affine
from worker.decoding import Decoder

_AHEAD = 16
_EPOCH = datetime.fromtimestamp(0, UTC)


class PreparedSlices:
    """The slices of a series as the encoder takes them, read once, from the feet to the head.

    Attributes:
        affine: from the encoder's input to pixels of a slice; None before the first was read.
        air: whether any slice read so far shows anything as thin as lung.
    """

    def __init__(self, series: CtSeries, bundle: Bundle, settings: Settings) -> None:
        self._series, self._bundle, self._settings = series, bundle, settings
        self.affine: Affine | None = None
        self.air = False

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Give each prepared slice, (S, S).

        Raises:
            ImageError: a slice cannot be read; the message names its file.
        """
        decoder = Decoder(self._settings, examine_slice, modules=("cv2",))
        with ThreadPoolExecutor(self._settings.decode_processes) as threads:
            decoder.start()
            try:
                for examined in self._examine(decoder, threads):
                    if examined.pixels is None:
                        raise UnreadablePixelsError("a slice without pixels")
                    self.affine = examined.affine
                    self.air = self.air or has_air(examined.pixels, self._bundle)
                    yield examined.pixels
            finally:
                decoder.stop()
                threads.shutdown(cancel_futures=True)

    def _examine(self, decoder: Decoder, threads: ThreadPoolExecutor) -> Iterator[Examined]:
        policy = Policy()
        running: deque[Future[Examined]] = deque()
        for number, one in enumerate(self._series.stack.slices):
            urgency = (0, _EPOCH, number)
            decode = (one.path, self._bundle, policy, Path(), urgency)
            running.append(threads.submit(decoder.decode, *decode))
            if len(running) >= _AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
