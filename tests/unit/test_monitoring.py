"""The dashboard and the alert rules ask for nothing that no service gives."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from common import metrics
from common.metrics_server import MetricsServer
from common.settings import Settings
from tests.conftest import REPOSITORY
from tests.unit.common.test_metrics_server import free_ports

FOLDER = REPOSITORY / "docs" / "monitoring"
FUNCTIONS = {
    "time", "max", "min", "sum", "count", "rate", "increase", "histogram_quantile", "by",
    "predict_linear", "vector", "or",
}  # fmt: skip
SERIES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
OF_PROMETHEUS = {"up"}


@pytest.fixture(scope="module")
def scraped() -> dict[str, set[str]]:
    """Give the labels of every series of a live scrape, by its name."""
    server = MetricsServer(Settings.model_validate({"metrics_port": free_ports()}), "beat").start()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    server.stop()
    # A metric with labels has no series before it counts: its labels stand in the code.
    declared: dict[str, set[str]] = {
        one._name: set(one._labelnames)
        for one in vars(metrics).values()
        if hasattr(one, "_labelnames")
    }
    found = {}
    for family in text_string_to_metric_families(text):
        labels = declared.get(family.name, set())
        for suffix in SERIES[family.type]:
            more = {"le"} if suffix == "_bucket" else set()
            name = family.name if family.name.endswith(suffix) else family.name + suffix
            found[name] = labels | more
    return found


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    """Give each panel's title and query."""
    dashboard = json.loads((FOLDER / "grafana.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def rules() -> list[dict[str, Any]]:
    """Give the alert rules."""
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return group["rules"]


def unknown_in(expression: str, scraped: dict[str, set[str]]) -> set[str]:
    """Give what an expression names that no service gives: series, and labels it picks or keeps."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    pick = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")
    picked = {
        f"{name}{{{label}}}"
        for name, inside in pick.findall(bare)
        for label in re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", inside)
        if label not in scraped.get(name, {"job"})
    }
    kept = {label for part in re.findall(r"by \(([^)]*)\)", bare) for label in WORD.findall(part)}
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", " ", bare)
    words = {word for word in WORD.findall(bare) if word not in FUNCTIONS and not _number(word)}
    labels = {label for name in words for label in scraped.get(name, set())}
    return picked | (words - set(scraped) - OF_PROMETHEUS) | (kept - labels - {"instance"})


def _number(word: str) -> bool:
    return re.fullmatch(r"e\d+", word) is not None


@pytest.mark.parametrize(("title", "expression"), list(dashboard_expressions()))
def test_every_panel_asks_for_what_a_live_scrape_has(
    title: str, expression: str, scraped: dict[str, set[str]]
) -> None:
    assert unknown_in(expression, scraped) == set(), title


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_is_whole_and_asks_for_what_a_live_scrape_has(
    rule: dict[str, Any], scraped: dict[str, set[str]]
) -> None:
    assert unknown_in(rule["expr"], scraped) == set()
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_a_name_that_nobody_gives_is_found(scraped: dict[str, set[str]]) -> None:
    assert unknown_in("rate(firstread_nonsense_total[5m])", scraped) == {"firstread_nonsense_total"}
    assert unknown_in("sum by (patient) (firstread_backpressure)", scraped) == {"patient"}
    assert unknown_in('firstread_ledger_items{status="x"}', scraped) == {
        "firstread_ledger_items{status}"
    }


def test_every_metric_is_on_the_dashboard_or_in_an_alert(scraped: dict[str, set[str]]) -> None:
    asked = " ".join(expression for _, expression in dashboard_expressions())
    asked += " ".join(rule["expr"] for rule in rules())
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in scraped}
    ours = {name for name in names if name.startswith("firstread_")}
    assert {name for name in ours if name not in asked} == set()


def test_no_label_can_name_a_patient_a_study_or_a_sender(scraped: dict[str, set[str]]) -> None:
    labels = {label for name, each in scraped.items() if "firstread" in name for label in each}
    assert labels <= {
        "service", "version", "python", "outcome", "status", "reason", "hop", "le", "end",
        "pipeline", "name", "step", "state", "band", "page",
    }  # fmt: skip


def test_the_example_configuration_reads_the_rules() -> None:
    configuration = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    assert [Path(FOLDER / name).is_file() for name in configuration["rule_files"]] == [True]
