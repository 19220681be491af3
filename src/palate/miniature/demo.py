"""Run the loop, measure it and write its report: what `palate demo` does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from palate.miniature.loop import RECIPE, Loop, Preset, demo_settings
from palate.miniature.measure import measure
from palate.miniature.showing import show, verdict
from palate.runs import hash_file, start_run


def run_demo(
    out: Path, preset: Preset, say: Callable[[str], None], recipe: Path = RECIPE, **given: object
) -> tuple[Path, dict[str, Any], str]:
    """Run the loop in `out`, or go on with it, and write `report.html` and `result.json`.

    Args:
        out: the folder of the run.
        preset: how much of everything.
        say: told what is being done, one sentence each.
        recipe: the settings of every verb.
        given: settings of `DemoSettings` that win over the recipe.

    Returns:
        The page, the findings, and the verdict in a sentence.

    Raises:
        RunError: if the folder holds a run with other settings.
    """
    settings = demo_settings(preset, recipe, **given)
    with start_run("demo", out, settings, {"recipe": recipe}) as run:
        loop = Loop(out, settings, recipe, say)
        loop.run()
        say("measuring")
        found = measure(loop)
        page = show(loop, found, datetime.now(tz=UTC).strftime("%Y-%m-%d"))
        run.finish({"verdict": verdict(found), "recipe": hash_file(recipe)})
    return page, found, verdict(found)
