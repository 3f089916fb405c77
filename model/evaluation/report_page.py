"""Lay a report out as one HTML page that needs no other file and prints on A4."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from model.evaluation.drawing import Line, draw_decision, draw_reliability, draw_roc, swatch
from model.evaluation.report import Figures, ModelReport, Report
from model.evaluation.report_tables import (
    brier_table,
    calibration_table,
    comparison_table,
    operating_point_table,
    overview_table,
    plural,
    strata_table,
    with_interval,
)

STYLE = Path(__file__).with_name("report.css")
WARNING = "Not for clinical use. This is not a medical device."
TITLES = {"dataset": "By source", "source": "By source", "age": "By age in years"}
READING = {
    "AUC": "The chance that an abnormal image scores above one that is not; 0.5 is a coin. Interval"
    " by DeLong, images counted as independent; beside it a bootstrap that resamples whole"
    " patients.",
    "Brier": "The mean squared distance between probability and truth; 0 is best, and saying the"
    " prevalence of every image gives the uncertainty. Equal to miscalibration, minus separation,"
    " plus uncertainty, plus what is left within bins.",
    "ECE": "The mean distance between the probability said and the share seen, over 5 bins of equal"
    " size. Beside it, where 95 % of such errors lie if every probability is true: inside that"
    " range, these cases show no miscalibration.",
    "Slope, intercept": "Of what is seen on what is said, both as log odds; 1 and 0 are perfect. A"
    " slope under 1 means probabilities too close to 0 and 1.",
    "Sensitivity, specificity": "Shares of the abnormal images that are flagged, and of the others"
    " that are not. The bound is one-sided: with 95 % confidence the true share lies above it.",
    "Net benefit": "Abnormal images flagged, less needless flags weighed by the odds of the"
    " threshold, per image. Worth using where the line lies above both grey ones. It holds at the"
    " prevalence of these cases.",
}


def render_report(report: Report) -> str:
    """Give the page as text."""
    parts = [
        _header(report),
        _cases(report),
        _summary(report),
        "<h2>All models</h2>" if len(report.models) > 1 else "<h2>Figures</h2>",
        overview_table(report),
        _charts(report),
        _section("Paired comparisons", comparison_table(report), keep=True),
        _section("At the operating points", operating_point_table(report), keep=True),
        _section("Calibration", calibration_table(report), keep=True),
        _section("Parts of the Brier score", brier_table(report), keep=True),
        *(
            _section(TITLES.get(column, f"By {column}"), strata_table(report, column))
            for column in _columns(report.models)
        ),
        _reading(report),
        _footer(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{STYLE.read_text()}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _header(report: Report) -> str:
    return (
        f"<header><h1>{escape(report.title)}</h1>"
        f'<p class="sub">{escape(", ".join(model.name for model in report.models))}'
        f" \N{MIDDLE DOT} {escape(report.made_at[:10])}</p>"
        f'<p class="warning">{WARNING}</p></header>'
    )


def _cases(report: Report) -> str:
    seen = report.cases
    numbers = {
        "images": seen.cases,
        "abnormal": f"{seen.abnormal} <small>({seen.abnormal / seen.cases:.0%})</small>",
        "not abnormal": seen.cases - seen.abnormal,
        "patients": seen.groups,
        "split": seen.split or "none",
    }
    cells = "".join(
        f"<div><b>{value}</b><span>{name}</span></div>" for name, value in numbers.items()
    )
    left_out = (
        f'<p class="note">{plural(seen.left_out, "image")} left out: not in every table.</p>'
        if seen.left_out
        else ""
    )
    return f'<div class="numbers">{cells}</div>{left_out}'


def _differing(report: Report) -> str:
    """Say how far the order of the models can be trusted: the highest of several flatters."""
    pairs = report.comparisons
    apart = sum(one.p_holm < 0.05 for one in pairs)
    if len(pairs) == 1:
        return "The two models differ." if apart else "The two models are not shown to differ."
    if not apart:
        return f"Corrected for {len(pairs)} comparisons, no two models are shown to differ."
    return f"Corrected for {len(pairs)} comparisons, {plural(apart, 'pair')} of models differ."


def _summary(report: Report) -> str:
    """Say in two sentences what a reader wants to know first of the best model."""
    rated = [model for model in report.models if model.overall.auc is not None]
    if not rated:
        return "<p>These cases are all of one class: no area under the curve can be given.</p>"
    best = max(rated, key=lambda model: model.overall.auc.value if model.overall.auc else 0)
    figures = best.overall
    said = [
        f"{'The highest AUC is that of ' if len(rated) > 1 else ''}<b>{escape(best.name)}</b>"
        f"{': ' if len(rated) > 1 else ' has AUC '}{with_interval(figures.auc)}."
    ]
    calibration = figures.calibration
    if calibration is None:
        said.append("It gives scores, no probabilities: nothing was calibrated yet.")
    else:
        inside = calibration.expected_error <= calibration.expected_error_high
        said.append(
            "Its probabilities are off by no more than chance explains."
            if inside
            else "Its probabilities are off by <b>more than chance explains</b>."
        )
    said.extend(_at_points(figures))
    if report.comparisons:
        said.append(_differing(report))
    return f"<p>{' '.join(said)}</p>"


def _at_points(figures: Figures) -> Iterable[str]:
    for point in figures.operating_points:
        if point.name != "default" or not point.sensitivity or not point.specificity:
            continue
        if point.abstained:
            yield (
                f"At its default operating point it flags {point.sensitivity.value:.0%} of the"
                f" abnormal images, clears {point.specificity.value:.0%} of the others, and gives"
                f" no opinion on {point.abstained:.0%} of all."
            )
        else:
            yield (
                f"At its default operating point it flags {point.sensitivity.value:.0%} of the"
                f" abnormal images and {1 - point.specificity.value:.0%} of the others."
            )


def _charts(report: Report) -> str:
    numbered = list(enumerate(report.models))
    roc = [Line(m.name, m.overall.roc, n) for n, m in numbered if m.overall.roc]
    charts = []
    if roc:
        dots = [
            (1 - p.specificity.value, p.sensitivity.value, n, f"{m.name}: {p.name}")
            for n, m in numbered
            for p in m.overall.operating_points
            # A model without an opinion on some cases is no point of a curve over all.
            if p.sensitivity and p.specificity and not p.abstained
        ]
        caption = "ROC; dots are operating points" if dots else "ROC"
        charts.append((caption, draw_roc(roc, dots)))
    calibrated = [(n, m, m.overall.calibration) for n, m in numbered if m.overall.calibration]
    if calibrated:
        bins = [(model.name, one.bins, n) for n, model, one in calibrated]
        charts.append(("Reliability, 5 bins of equal size", draw_reliability(bins)))
    benefit = [Line(m.name, m.overall.net_benefit, n) for n, m in numbered if m.overall.net_benefit]
    if benefit and report.flag_everyone:
        everyone = Line("flag everyone", report.flag_everyone, -1)
        prevalence = report.cases.abnormal / report.cases.cases
        charts.append(("Decision curve", draw_decision([everyone, *benefit], prevalence)))
    figures = "".join(
        f"<figure><figcaption>{caption}</figcaption>{picture}</figure>"
        for caption, picture in charts
    )
    legend = "".join(f"<li>{swatch(n)}{escape(m.name)}</li>" for n, m in numbered)
    grey = f"<li>{swatch(-1)}chance; perfect; flag everyone or no one</li>"
    return (
        f'<section class="keep"><div class="charts">{figures}</div>'
        f'<ul class="legend">{legend}{grey}</ul></section>'
    )


def _columns(models: Sequence[ModelReport]) -> list[str]:
    """Name the columns that part the cases; one value alone would repeat what stands above."""
    values: dict[str, set[str]] = {}
    for model in models:
        for one in model.strata:
            values.setdefault(one.column, set()).add(one.value)
    return [column for column, found in values.items() if len(found) > 1]


def _section(title: str, table: str, *, keep: bool = False) -> str:
    if not table:
        return ""
    kept = ' class="keep"' if keep else ""
    return f"<section{kept}><h2>{escape(title)}</h2>{table}</section>"


def _reading(report: Report) -> str:
    calibrated = any(model.overall.calibration for model in report.models)
    terms = READING if calibrated else {"AUC": READING["AUC"]}
    entries = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in terms.items())
    return f'<section class="keep"><h2>How to read this</h2><dl>{entries}</dl></section>'


def _footer(report: Report) -> str:
    hashes = "; ".join(f"{escape(one.name)} {one.sha256[:16]}" for one in report.models)
    return (
        f"<footer>Made {escape(report.made_at)} by <code>firstread train evaluate</code>, commit "
        f"{escape(report.commit)}. SHA-256 of what was measured: {hashes}. The same figures as"
        " numbers stand in the JSON file beside this page.</footer>"
    )
