"""The demo on a terminal: studies moving through their states, then the verdict."""

from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from common.states import AnalysisState, Outcome
from firstread.demo_ledger import Seen, SeenObject
from firstread.demo_sender import DemoSender
from firstread.demo_verdict import Check

SHOWN_STUDIES = 14
STATE_STYLES = {
    AnalysisState.QUEUED: "dim",
    AnalysisState.RUNNING: "cyan",
    AnalysisState.DONE: "green",
    AnalysisState.FAILED: "red",
    AnalysisState.NOT_ELIGIBLE: "blue",
}
OUTCOME_STYLES = {Outcome.FLAGGED: "bold yellow", Outcome.PENDING: "dim", Outcome.INCOMPLETE: "red"}
STORED_ASIDE = "answered"  # taken by nobody: refused, or the same object once more


class Screen:
    """A table that follows the studies; on something that is no terminal, a line now and then."""

    def __init__(self, console: Console, address: str) -> None:
        self.console = console
        self.address = address
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._printed = ""

    def __enter__(self) -> Self:
        self.console.print(f"\nDashboard: [bold]{self.address}[/]   Ctrl-C stops everything\n")
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, sentence: str) -> None:
        """Print a line above the table."""
        self.console.print(sentence, markup=False, soft_wrap=True)

    def show(self, sender: DemoSender, seen: Seen) -> None:
        """Draw what is so now."""
        if self.console.is_terminal:
            self._live.update(Group(draw_studies(sender, seen), summary(sender, seen)))
            return
        line = summary(sender, seen).plain
        if line != self._printed:
            self._printed = line
            self.console.print(line, markup=False, soft_wrap=True)

    def rest(self, sender: DemoSender, seen: Seen) -> None:
        """Leave the last picture on the screen."""
        self._live.stop()
        self.console.print(draw_studies(sender, seen))
        self.console.print(summary(sender, seen), soft_wrap=True)


def draw_studies(sender: DemoSender, seen: Seen) -> Table:
    """Draw the studies sent last: where each of their objects stands, and their rank."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("study", "objects", "outcome", "probability", "band", "order", "seconds"):
        table.add_column(heading, no_wrap=True, justify="left")
    by_study: dict[str, list[SeenObject]] = {}
    for one in seen.objects:
        by_study.setdefault(one.study_instance_uid, []).append(one)
    for uid, label in list(sender.label_studies(seen).items())[-SHOWN_STUDIES:]:
        objects, item = by_study.get(uid, []), seen.studies.get(uid)
        states = Text(" ").join(
            Text(one.state.replace("_", " "), style=STATE_STYLES[one.state]) for one in objects
        )
        probability = max((one.probability for one in objects if one.probability), default=None)
        seconds = [
            (one.finished_at - one.received_at).total_seconds()
            for one in objects
            if one.finished_at is not None
        ]
        table.add_row(
            label[:44],
            states if objects else Text(STORED_ASIDE, style="dim"),
            Text(item.outcome.replace("_", " "), style=OUTCOME_STYLES.get(item.outcome, ""))
            if item
            else "",
            "" if probability is None else f"{probability:.2f}",
            str(item.band) if item else "",
            item.order_priority.value if item else "",
            f"{max(seconds):.1f}" if seconds else "",
        )
    return table


def summary(sender: DemoSender, seen: Seen) -> Text:
    """Say in one line how far everything is."""
    counts = Counter(one.state for one in seen.objects)
    parts = [f"{counts[state]} {state.replace('_', ' ')}" for state in AnalysisState]
    settled = sum(study.final for study in seen.studies.values())
    return Text(
        f"sent {len(sender.answers)} of {sender.total}   {'  '.join(parts)}   "
        f"studies final {settled} of {len(seen.studies)}"
    )


def print_verdict(console: Console, checks: Sequence[Check], error: str | None) -> None:
    """Print each check, its complaints, and the one word that matters."""
    console.print()
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        mark = Text("passed", style="green") if check.passed else Text("FAILED", style="bold red")
        table.add_row(mark, check.subject, Text(check.found, style="dim"))
    console.print(table)
    for check in checks:
        for sentence in (*check.complaints[:10], *check.notes[:20]):
            console.print(f"  {sentence}", markup=False, soft_wrap=True)
    if error:
        console.print(f"  sending stopped: {error}", markup=False)
    passed = error is None and checks and all(check.passed for check in checks)
    console.print(
        "\n[bold green]Everything is as expected.[/]\n"
        if passed
        else "\n[bold red]Not everything is as expected.[/]\n"
    )
