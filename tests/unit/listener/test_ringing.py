"""The ringer never waits and never dies."""

from threading import Event

from dicom_listener.ringing import Ringer


def test_a_bell_that_hangs_fills_the_backlog_and_delays_nobody() -> None:
    unheard, rung = Event(), []

    def hang(analysis_id: int, times: int) -> bool:
        unheard.wait(10)
        rung.append((analysis_id, times))
        return True

    ringer = Ringer(hang, backlog=3)
    ringer.start()
    for analysis_id in range(20):
        ringer.ring(analysis_id)
    assert ringer.dropped >= 16
    unheard.set()
    ringer.stop()
    assert sum(times for _, times in rung) == 20 - ringer.dropped


def test_a_bell_that_breaks_is_rung_again() -> None:
    rung, heard = [], Event()

    def break_always(analysis_id: int, _: int) -> bool:
        rung.append(analysis_id)
        heard.set()
        raise RuntimeError("broken")

    ringer = Ringer(break_always)
    ringer.start()
    ringer.ring(1)
    assert heard.wait(5)
    ringer.ring(2)
    ringer.stop()
    assert rung == [1, 2]
