"""SIGKILL of each process while eight associations send: nothing acknowledged is lost or doubled.

Instants come from a seed, FAULT_SEED, which is printed. Each kill is seen in the exit status of
what was killed, and counts only if senders were at work at that moment.
"""

import time
from collections.abc import Callable

import pytest

from tests.faults.chance import chance
from tests.faults.process import Process
from tests.faults.sending import Sending
from tests.faults.stack import Stack
from tests.waiting import eventually


def strike(stack: Stack, sending: Sending, times: int, blow: Callable[[], object]) -> None:
    """Do it so many times, each time while associations are open."""
    for _ in range(times):
        assert eventually(lambda: sending.alive > 0, 60, 0.01), "nobody sends any more"
        blow()


def finish(stack: Stack, sending: Sending, case: str, within_s: float = 600) -> None:
    """Let the senders and the workers come to an end, and count."""
    sending.finish(within_s)
    assert sending.given_up == [], str(sending)
    assert sending.acknowledged == set(sending.objects.made), str(sending)
    stack.drain(within_s)
    ended = [one.name for one in stack.services if not one.running]
    assert ended == [], "these ended by themselves, for the sake of another's fault"
    stack.tally(case, sending).check()


def kill_and_start(process: Process) -> None:
    """SIGKILL it, and start another at once."""
    process.kill()
    process.start()


def stop_at_work(stack: Stack, worker: Process, wait: Callable[[], None] = lambda: None) -> int:
    """SIGSTOP a worker while it holds claimed analyses; give how many."""
    for _ in range(50):
        assert eventually(lambda: stack.held_by(worker) > 1, 60, 0.01)
        wait()
        worker.suspend()
        if held := stack.held_by(worker):
            return held
        worker.resume()  # it was faster
    raise AssertionError("it held nothing whenever it was stopped")


def kill_listeners(case: str, kills: int, images: int, uptime_s: float) -> None:
    """Kill the one listener at random instants, now and then while it is still starting."""
    dice = chance(case)
    with Stack() as stack:
        sending = stack.send(at_least=images, images_per_study=3)
        (listener,) = stack.listeners

        def blow() -> None:
            if dice.random() < 0.9:
                listener.wait_ready()
            time.sleep(dice.uniform(0.0, uptime_s))
            kill_and_start(listener)

        strike(stack, sending, kills, blow)
        finish(stack, sending, case)
        assert stack.faults()["SIGKILL of the listener"] == kills
        assert sending.broken >= kills // 2, str(sending)  # most blows broke associations


def test_a_listener_killed_three_times_loses_nothing_that_it_acknowledged() -> None:
    kill_listeners("listener killed, short", kills=3, images=150, uptime_s=0.6)


@pytest.mark.faults
def test_a_listener_killed_fifty_five_times_loses_nothing_that_it_acknowledged() -> None:
    kill_listeners("listener killed", kills=55, images=3000, uptime_s=2.0)


@pytest.mark.faults
def test_workers_killed_amid_their_batches_lose_nothing_and_do_nothing_twice() -> None:
    case = "worker killed amid its batch"
    dice = chance(case)
    with Stack(workers=2, load="load_slow_number") as stack:
        sending = stack.send(at_least=1500, per_association=10, rest_s=2.0)

        def blow() -> None:
            worker = dice.choice(stack.workers)
            worker.wait_ready()
            held = stop_at_work(stack, worker, lambda: time.sleep(dice.uniform(0.0, 0.2)))
            kill_and_start(worker)
            stack.more_faults["analyses under way in a killed worker"] += held

        strike(stack, sending, 20, blow)
        finish(stack, sending, case)


@pytest.mark.faults
def test_beat_and_redis_killed_with_and_without_its_data_delay_work_and_lose_none() -> None:
    case = "beat and Redis killed"
    dice = chance(case)
    with Stack() as stack:
        sending = stack.send(at_least=1000, per_association=10, rest_s=1.0)

        def blow() -> None:
            time.sleep(dice.uniform(0.2, 1.5))
            kill_and_start(stack.beat)
            stack.redis.kill()
            stack.redis.keeps = not stack.redis.keeps
            time.sleep(dice.uniform(0.0, 1.0))
            stack.redis.start()
            stack.beat.wait_ready()

        strike(stack, sending, 12, blow)
        finish(stack, sending, case)


@pytest.mark.faults
def test_postgres_killed_and_started_again_has_every_acknowledged_row() -> None:
    case = "Postgres killed"
    dice = chance(case)
    with Stack() as stack:
        sending = stack.send(at_least=1000, per_association=10, rest_s=1.0)

        def blow() -> None:
            time.sleep(dice.uniform(0.2, 2.5))
            stack.postgres.kill()
            time.sleep(dice.uniform(0.0, 1.0))
            stack.postgres.restart()
            time.sleep(dice.uniform(0.5, 2.0))
            assert eventually(stack.postgres.kill_backend, 30, 0.01)

        strike(stack, sending, 10, blow)
        finish(stack, sending, case)


@pytest.mark.faults
def test_everything_killed_in_turns_loses_nothing_and_does_nothing_twice() -> None:
    case = "all of them killed"
    dice = chance(case)
    with Stack(listeners=2, workers=2) as stack:
        sending = stack.send(at_least=2000, per_association=10, rest_s=0.5, images_per_study=2)

        def kill_redis() -> None:
            stack.redis.kill()
            time.sleep(dice.uniform(0.0, 0.5))
            stack.redis.keeps = not stack.redis.keeps
            stack.redis.start()

        def kill_postgres() -> None:
            stack.postgres.kill()
            time.sleep(dice.uniform(0.0, 0.5))
            stack.postgres.restart()

        def kill_one_of(processes: list[Process]) -> None:
            running = [process for process in processes if process.running]
            if running:
                dice.choice(running).kill()

        def kill_all() -> None:
            for process in stack.services:
                if process.running:
                    process.kill()
            kill_redis()
            kill_postgres()

        blows = [
            *[lambda: kill_one_of(stack.listeners)] * 3,
            *[lambda: kill_one_of(stack.workers)] * 3,
            lambda: kill_one_of([stack.beat]),
            kill_redis,
            kill_postgres,
            stack.postgres.kill_backend,
            kill_all,
        ]

        def blow() -> None:
            time.sleep(dice.uniform(0.1, 2.0))
            dice.choice(blows)()
            stack.revive()

        strike(stack, sending, 50, blow)
        stack.revive_all()
        finish(stack, sending, case)


def stop_a_worker_past_its_lease(images: int) -> None:
    """SIGSTOP a worker that holds work until another has done it, then let it go on."""
    case = "worker stopped past its lease"
    with Stack(workers=2, load="load_slow_number") as stack:
        sending = stack.send(at_least=images)
        sleeper, other = stack.workers
        # What is stopped before its first prediction is dropped rightly, and has no late result.
        assert eventually(lambda: "analysis_ended" in sleeper.told(), 60), "it ended nothing"
        held = stop_at_work(stack, sleeper)
        sending.finish()
        assert eventually(lambda: stack.held_by(sleeper) == 0, 90), "its leases did not end"
        stack.drain()
        assert other.running
        before = stack.late_results()
        sleeper.resume()
        assert eventually(lambda: stack.late_results() > before, 60), "no late result came"
        late = stack.late_results() - before
        assert 0 < late <= held
        stack.more_faults["late results discarded"] += late
        assert "result_discarded" in sleeper.told()
        stack.tally(case, sending).check()


def test_the_late_results_of_a_stopped_worker_are_discarded_and_counted() -> None:
    stop_a_worker_past_its_lease(images=40)
