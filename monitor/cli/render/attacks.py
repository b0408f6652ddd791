"""Tables of what a probe withstands: by family of attacks, and against a search."""

from __future__ import annotations

from monitor.cli.render.tables import print_line, print_table
from probes.attacks.adaptive import AdaptiveReport
from probes.attacks.report import AttackReport, FamilyFigures

_COLUMNS = ("family", "may choose", "TPR", "FPR", "AUROC", "unreadable", "messages", "worst wording")
_LONGEST = 60


def print_attacks(report: AttackReport) -> None:
    """The families, the worst first, below the plain messages."""
    rows = [_row(report.plain_figures), *map(_row, report.families)]
    title = f"{report.probe} v{report.version} under attack, flagged above {report.threshold:.3f}"
    note = (
        f"{report.harmful} harmful and {report.benign} benign messages, {report.wordings_per_row} wording(s) each, "
        f"seed {report.seed}, max_tokens {report.max_tokens}, max_windows {report.max_windows}; 95 % intervals"
    )
    print_table(_COLUMNS, rows, title=title, note=note)
    print_line("unreadable: harmful messages that are called so, whatever their scores")
    for held_out, what in ((False, "of the families that may choose"), (True, "of those that hold out")):
        worst = report.worst(held_out=held_out)
        if worst is not None:
            print_line(f"worst {what}: {worst.family}, TPR {worst.tpr}, FPR {worst.fpr}")
    if unscored := report.plain_figures.not_scored + sum(f.not_scored for f in report.families):
        print_line(f"{unscored} messages gave no score (nothing in the probe's span); they count as not flagged")


def _row(figures: FamilyFigures) -> tuple[str, ...]:
    lowest = figures.lowest_tpr
    worst = "" if lowest is None else f"{lowest.rate.value:.2f} of {lowest.rate.n}: {_short(lowest.wording)}"
    return (
        figures.family,
        "" if not figures.wordings else "no" if figures.holds_out else "yes",
        str(figures.tpr),
        str(figures.fpr),
        "" if figures.auroc is None else str(figures.auroc),
        "" if figures.unreadable is None else f"{figures.unreadable.value:.2f}",
        str(figures.messages),
        worst,
    )


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else f"{flat[: _LONGEST - 3]}..."


def print_adaptive(report: AdaptiveReport) -> None:
    """What is still flagged after so many queries."""
    rows = [(str(budget), str(share)) for budget, share in report.curve]
    print_table(
        ("queries", "still flagged"),
        rows,
        title=f"{report.probe} v{report.version} against a {report.method} search on {report.messages} messages",
        note=f"the attacker changes {report.changes}; not tried: {', '.join(report.not_tried)}",
    )
    if report.no_gradient:
        print_line(f"{report.no_gradient:.0%} of the gradients were zero: there the tokens were drawn at random")
