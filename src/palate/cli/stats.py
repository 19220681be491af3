"""`palate stats`: what choices say, how sure that is, and how many a study needs."""

from __future__ import annotations

import typer

from palate.cli.agreeing import agreement
from palate.cli.judging import bias, calibrate, probe
from palate.cli.measuring import correlation, distribution
from palate.cli.planning import plan
from palate.cli.ranking import rank

stats_app = typer.Typer(
    help="Agreement, rankings, calibration, bias and sample sizes.",
    no_args_is_help=True,
    epilog="Example: palate stats agreement data/study",
)
for command in (agreement, rank, plan, calibrate, bias, probe, correlation, distribution):
    stats_app.command(command.__name__)(command)
