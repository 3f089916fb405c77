"""The tables of a report, as HTML."""

from collections.abc import Sequence
from html import escape

from model.evaluation.report import Figures, Interval, Report
from model.operating_points import Proportion

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
DEFAULT = "default"


def overview_table(report: Report) -> str:
    """Give one row a model: how well it tells abnormal from the rest, and its Brier score."""
    head = ["Model", "AUC (95 %, DeLong)", "95 % over patients", "Brier (95 %)"]
    rows = []
    for model in report.models:
        one, calibration = model.overall, model.overall.calibration
        brier = DASH if calibration is None else with_interval(calibration.brier)
        cells = [escape(model.name), with_interval(one.auc), f"<small>{_range(one.auc_bootstrap)}"]
        rows.append([*cells[:2], f"{cells[2]}</small>", brier])
    return _table(head, rows)


def calibration_table(report: Report) -> str:
    """Give one row a model: whether its probabilities mean what they say."""
    head = ["Model", "ECE", "95 % by chance alone", "slope", "intercept", "mean said / share seen"]
    rows = []
    for model in report.models:
        if (one := model.overall.calibration) is not None:
            inside = one.expected_error <= one.expected_error_high
            verdict = "good" if inside else "bad"
            seen = model.overall.abnormal / model.overall.cases
            chance = f"{one.expected_error_low:.3f} to {one.expected_error_high:.3f}"
            cells = [
                f'<span class="{verdict}">{one.expected_error:.3f}</span>',
                f"{chance} <small>({'inside' if inside else 'beyond'})</small>",
                _figure(one.slope, 2),
                _signed(one.intercept, 2),
                f"{one.mean_probability:.2f} / {seen:.2f}",
            ]
            rows.append([escape(model.name), *cells])
    return _table(head, rows) if rows else ""


def comparison_table(report: Report) -> str:
    """Give one row a pair of models; nothing where there is one model."""
    if not report.comparisons:
        return ""
    several = len(report.comparisons) > 1
    head = ["AUC of the first less that of the second", "difference", "over patients", "p"]
    rows = []
    for one in report.comparisons:
        names = f"{escape(one.first)} {MINUS} {escape(one.second)}"
        difference = one.difference
        shown = _signed(difference.value, 3)
        shown += f" <small>({_signed(difference.low, 3)} to {_signed(difference.high, 3)})</small>"
        drawn = f"{_signed(one.bootstrap.low, 3)} to {_signed(one.bootstrap.high, 3)}"
        cells = [names, shown, f"<small>{drawn}</small>", p_value(one.p_value)]
        rows.append([*cells, p_value(one.p_holm)] if several else cells)
    note = "Paired DeLong on the same images; two-sided p"
    note += ", then corrected by Holm over all rows." if several else "."
    table = _table([*head, "p, Holm"] if several else head, rows)
    return f'{table}<p class="note">{note}</p>'


def operating_point_table(report: Report) -> str:
    """Give one row a model and operating point."""
    points = [one for model in report.models for one in model.overall.operating_points]
    silent = any(one.abstained for one in points)
    rows = [
        [
            f"{escape(model.name)}: {escape(one.name)}" if len(report.models) > 1 else one.name,
            f"{one.threshold:.3f}",
            _share(one.sensitivity),
            _share(one.specificity),
            f"{one.flag_rate:.0%}",
            *([f"{one.abstained:.0%}"] if silent else []),
        ]
        for model in report.models
        for one in model.overall.operating_points
    ]
    head = ["Point", "flagged from", "sensitivity", "specificity", "flagged"]
    if not silent:
        return _table(head, rows) if rows else ""
    note = "A case without an opinion is neither flagged nor cleared: it counts against both."
    return f'{_table([*head, "no opinion"], rows)}<p class="note">{note}</p>'


def strata_table(report: Report, column: str) -> str:
    """Give one row a model and value of a column."""
    named = {point.name for model in report.models for point in model.overall.operating_points}
    at = DEFAULT if DEFAULT in named else min(named, default="")
    point = f" <small>at {escape(at)}</small>" if at else ""
    shares = [f"{name}{point}" for name in ("sensitivity", "specificity")]
    head = ["", "abnormal / not", "AUC (95 %)", *shares, "mean said / seen", "Brier"]
    rows: list[list[str]] = []
    for model in report.models:
        if len(report.models) > 1:
            rows.append([escape(model.name)])
        rows.extend(
            [escape(one.value), *_stratum_cells(one.figures, at)]
            for one in model.strata
            if one.column == column
        )
    return _table(head, rows)


def brier_table(report: Report) -> str:
    """Give one row a model: where its Brier score comes from."""
    head = ["Model", "Brier", "miscalibration", "separation", "uncertainty", "within bins"]
    rows = []
    for model in report.models:
        if (one := model.overall.calibration) is not None:
            parts = [
                _figure(one.brier.value, 4),
                f"+ {one.brier_reliability:.4f}",
                f"{MINUS} {one.brier_resolution:.4f}",
                f"+ {one.brier_uncertainty:.4f}",
                _signed(one.brier_within_bins, 4, " "),
            ]
            rows.append([escape(model.name), *parts])
    return _table(head, rows) if rows else ""


def with_interval(interval: Interval | None, digits: int = 3) -> str:
    """Write a figure with its 95 % interval."""
    if interval is None:
        return DASH
    return f"{interval.value:.{digits}f} <small>({_range(interval, digits)})</small>"


def p_value(p: float) -> str:
    """Write a p value; very small ones by their bound."""
    return "&lt; 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def plural(count: int, noun: str) -> str:
    """Count a noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _stratum_cells(figures: Figures, at: str) -> list[str]:
    point = next((one for one in figures.operating_points if one.name == at), None)
    calibration = figures.calibration
    seen = figures.abnormal / figures.cases
    return [
        f"{figures.abnormal} / {figures.cases - figures.abnormal}",
        with_interval(figures.auc),
        _share(point.sensitivity, short=True) if point else DASH,
        _share(point.specificity, short=True) if point else DASH,
        f"{calibration.mean_probability:.2f} / {seen:.2f}" if calibration else DASH,
        _figure(calibration.brier.value, 3) if calibration else DASH,
    ]


def _share(share: Proportion | None, *, short: bool = False) -> str:
    if share is None:
        return DASH
    bound = f"&ge; {share.lower_bound:.2f}"
    return f"{share.value:.2f} <small>({bound}{'' if short else f', n {share.n}'})</small>"


def _range(interval: Interval | None, digits: int = 3) -> str:
    if interval is None:
        return DASH
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"


def _figure(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def _signed(value: float | None, digits: int, gap: str = "") -> str:
    if value is None:
        return DASH
    sign = MINUS if round(value, digits) < 0 else "+"
    return f"{sign}{gap}{abs(value):.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out; a row of one cell is a heading over those that follow."""
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(
        f'<tr><td class="group" colspan="{len(head)}">{row[0]}</td></tr>'
        if len(row) == 1
        else f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'
