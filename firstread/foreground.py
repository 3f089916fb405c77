"""`firstread up`: the stack in the foreground, a line for each step, until Ctrl-C."""

import sys
import time

from rich.console import Console

from common.settings import Settings
from dashboard.address import dashboard_address
from firstread.stack import Stack, StopRequestedError, stop_on_signals


class Narrator:
    """Tell a person what happens, a line a step, with the seconds since the start."""

    def __init__(self, console: Console | None = None) -> None:
        # Where no terminal says how wide it is, the demo's table needs more than 80 columns.
        width = None if sys.stdout.isatty() else 120
        self.console = console or Console(highlight=False, width=width)
        self.began_s = time.monotonic()

    def say(self, sentence: str) -> None:
        """Print a step."""
        passed = time.monotonic() - self.began_s
        self.console.print(f"[dim]{passed:6.1f} s[/]  ", end="")
        self.console.print(sentence, markup=False, soft_wrap=True)


def run_stack(settings: Settings) -> int:
    """Run until asked to stop. Returns the exit status: 1 if something had to be killed."""
    narrator = Narrator()
    with stop_on_signals() as stop:
        stack = Stack(settings, say=narrator.say, stop=stop)
        try:
            with stack:
                narrator.say(f"dashboard  {dashboard_address(settings)}")
                narrator.say(
                    f"listener   {settings.ae_title}@{settings.dicom_host}:{settings.dicom_port}"
                )
                narrator.say(f"data       {settings.home}")
                narrator.say("Ctrl-C stops everything")
                stack.run()
                narrator.say("stopping")
        except StopRequestedError:
            narrator.say("stopped while starting")
    narrator.say("stopped")
    return 1 if stack.killed else 0
