"""Lay a localisation report out as Markdown."""

from model.evaluation.localisation import HOTTEST_SHARE, OVERLAPS, TOLERANCE
from model.evaluation.localisation_table import Comparison, Interval, LocalisationReport


def localisation_text(report: LocalisationReport, notes: dict[str, str]) -> str:
    """Give the table of methods, that of comparisons, and what so few boxes can show.

    ``notes`` say what each method is, by name.
    """
    return "\n\n".join(
        [
            f"{report.boxes} boxes of {report.patients} patients. Intervals: 95 %, resampling "
            "patients. Every figure depends on the order of the places alone: the box of a map "
            f"lies around the largest connected part of its hottest {HOTTEST_SHARE:.0%} of the "
            f"image; near: within {TOLERANCE:.0%} of the image's side. IoBB: intersection over "
            "that box.",
            _methods(report, notes),
            f"Against `{report.reference}` (positive: it does better). Hits by exact McNemar, of "
            "each method's seed with the median number of hits; IoU and pixel AUC by the "
            "signed-rank test with Pratt's zeros on means over seeds; Holm within each figure.",
            _comparisons(report),
            _smallest(report),
        ]
    )


def _methods(report: LocalisationReport, notes: dict[str, str]) -> str:
    overlaps = [f"IoU > {t}" for t in OVERLAPS] + [f"IoBB > {t}" for t in OVERLAPS]
    head = ["method", "runs", "hit", "near hit", "mean IoU", "pixel AUC", *overlaps, "what it is"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in report.methods:
        intervals = [_show(one) for one in (row.hit, row.near_hit, row.iou, row.pixel_auc)]
        shares = [f"{share:.2f}" for share in (*row.iou_above.values(), *row.iobb_above.values())]
        cells = [f"`{row.name}`", str(row.runs), *intervals, *shares]
        lines.append(_line([*cells, notes.get(row.name, "")]))
    return "\n".join(lines)


def _comparisons(report: LocalisationReport) -> str:
    head = ["against", "hit", "alone / other alone", "p (Holm)", "IoU", "p (Holm)", "pixel AUC"]
    lines = [_line([*head, "p (Holm)"]), _line(["---"] * 8)]
    for name in dict.fromkeys(row.other for row in report.comparisons):
        of = {row.figure: row for row in report.comparisons if row.other == name}
        hit = of["hit"]
        cells = [f"`{name}`", _show(hit.difference, signed=True)]
        cells += [f"{hit.only_reference} / {hit.only_other}", _p(hit)]
        for figure in ("iou", "pixel_auc"):
            cells += [_show(of[figure].difference, signed=True), _p(of[figure])]
        lines.append(_line(cells))
    return "\n".join(lines)


def _smallest(report: LocalisationReport) -> str:
    least = report.smallest
    return (
        f"What {report.boxes} boxes can show with a power of 80 % (two-sided, 5 %, boxes taken as "
        f"independent): a difference in hits of {_least(least.hit)} where two methods differ on "
        f"{least.discordant:.0%} of boxes, as they did here at the median; "
        f"{_least(least.hit_all_to_one)} if all boxes on which they differ fall to the same "
        f"method; {_least(least.hit_holm)} at the first step of Holm. In IoU a shift of "
        f"{least.iou:.3f}, in pixel AUC {least.pixel_auc:.3f} (one comparison, by simulation). "
        "Smaller differences in this table are no evidence, in either direction."
    )


def _least(difference: float | None) -> str:
    return "any size: none" if difference is None else f"{difference:.3f}"


def _show(interval: Interval, *, signed: bool = False) -> str:
    form = "{:+.2f} ({:+.2f} to {:+.2f})" if signed else "{:.2f} ({:.2f} to {:.2f})"
    return form.format(*interval)


def _p(row: Comparison) -> str:
    each = [f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in (row.p, row.p_holm)]
    return f"{each[0]} ({each[1]})"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
