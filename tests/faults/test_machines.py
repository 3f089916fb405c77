"""Several listeners and workers as hosts of their own over one Postgres, Redis and archive."""

import dataclasses
import sys
from collections import Counter

import pytest
from sqlalchemy import func, select

from common.states import AnalysisState
from common.tables import Analysis, Instance, ModelVersion
from tests.faults.cluster import Cluster
from tests.faults.parts import VERSION_STEP
from tests.faults.sending import Sending
from tests.waiting import eventually
from tests.worker_parts import make_bundle
from worker.registration import activate_version, register

pytestmark = pytest.mark.faults


def results(site: Cluster, *sendings: Sending) -> dict[str, list[tuple[float, int]]]:
    """Give the scores and model versions of what is done, by SOP Instance UID."""
    found: dict[str, list[tuple[float, int]]] = {
        uid: [] for sending in sendings for uid in sending.objects.made
    }
    with site.sessions() as session:
        rows = session.execute(
            select(Instance.sop_instance_uid, Analysis.score, Analysis.model_version_id)
            .join(Analysis, Analysis.instance_id == Instance.id)
            .where(Analysis.state == AnalysisState.DONE)
        ).all()
    for row in rows:
        found[row.sop_instance_uid].append((row.score, row.model_version_id))
    return found


def scored_by(site: Cluster, model_version_id: int) -> int:
    """Count what a model version has scored."""
    done = select(func.count()).where(
        Analysis.model_version_id == model_version_id, Analysis.state == AnalysisState.DONE
    )
    with site.sessions() as session:
        return session.execute(done).scalar_one()


def test_a_worker_that_joins_or_leaves_needs_no_restart_elsewhere() -> None:
    with Cluster(beat_on="listener2") as site:
        site.listen("listener1")
        site.listen("listener2")
        first = site.work("worker1")
        sendings = [site.send_to("listener1", associations=2), site.send_to("listener2")]
        assert eventually(lambda: site.done() > 20, 90), site.states()
        second = site.work("worker2")
        assert eventually(lambda: second.told().count("analysis_ended") > 20, 90)
        site.network.faults["worker joined"] += 1
        assert first.terminate() == 0
        site.network.faults["worker left"] += 1
        ended = second.told().count("analysis_ended")
        assert eventually(lambda: second.told().count("analysis_ended") > ended + 20, 90)
        second.kill()  # and one goes without a word
        site.work("worker1")
        for sending in sendings:
            sending.finish(240)
        site.drain(240)
        assert all(one.starts == 1 and one.running for one in (*site.listeners, site.beat))
        site.tally("workers join and leave", *sendings).check()


def test_what_a_host_with_upkeep_on_it_held_is_done_elsewhere_while_it_is_cut_off() -> None:
    with Cluster(beat_on="worker1") as site:
        site.listen("listener1")
        site.work("worker1")
        sending = site.send_to("listener1")
        assert eventually(lambda: site.done() > 12, 90)
        site.work("worker2")
        site.beat_too("listener2")
        with site.network.cable_out("worker1"):
            sending.finish(120)
            site.drain(120)  # all of it, with one of two workers and one of two upkeeps away
        site.tally("worker and upkeep cut off", sending).check()
        with site.sessions() as session:
            rows = session.scalars(select(Analysis)).all()
        again = sum(row.losses for row in rows)
        sys.stdout.write(f"\nleases lost: {again}; late: {sum(row.late_results for row in rows)}\n")
        assert all(row.attempt == 1 + row.losses for row in rows)


def test_a_model_activated_under_load_mixes_its_version_with_no_result() -> None:
    with Cluster(load="load_versioned", beat_on="listener2") as site:
        site.listen("listener1")
        site.work("worker1")
        site.work("worker2")
        sending = site.send_to("listener1", associations=4)
        for number in (2, 3, 4):
            done = site.done()
            assert eventually(lambda done=done: site.done() > done + 25, 120), site.states()
            bundle = make_bundle(site.folder / "bundles" / f"v{number}", version=f"{number}.0.0")
            with site.sessions.begin() as session:
                (version,) = register(session, [bundle], actor="test")
                activate_version(session, version, actor="test")
                new = version.id
            assert eventually(lambda new=new: scored_by(site, new) > 0, 120), site.states()
        sending.finish(240)
        site.drain(240)
        with site.sessions() as session:
            versions = {one.id: one for one in session.scalars(select(ModelVersion))}
        numbers, wrong = Counter[int](), []
        for uid, found in results(site, sending).items():
            made = sending.objects.made[uid].number
            for score, version_id in found:
                number = int(versions[version_id].version.partition(".")[0])
                numbers[number] += 1
                if score != made + VERSION_STEP * number:
                    wrong.append((uid, score, number))
            if len(found) != 1:
                wrong.append((uid, found))
        assert wrong == []
        assert set(numbers) == {1, 2, 3, 4}, numbers
        assert len({one.bundle_sha256 for one in versions.values()}) == 4
        sys.stdout.write(f"\nresults by version: {dict(numbers)}\n")
        site.network.faults["model activated under load"] += 3
        counted = site.tally("model activated under load", sending, analysed=False)
        dataclasses.replace(counted, lost=counted.lost + len(wrong)).check()
