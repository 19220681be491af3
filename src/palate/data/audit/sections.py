"""The sections of an audit's page below the findings: tables and charts of what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from palate.data.audit.answers import FEW, Ties
from palate.data.audit.audit import Audit
from palate.data.audit.charts import Bar, bar_chart, histogram, shortened
from palate.data.audit.people import Agreement, Person, Speed
from palate.data.audit.prompts import Lengths, Prompts
from palate.data.position import PositionBias, Share

_PEOPLE: Final = 40


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, its title and what it says."""

    key: str
    title: str
    html: str


def sections(audit: Audit) -> Iterator[Section]:
    """Everything that was measured, in the order in which it matters."""
    facts = audit.facts
    if facts.leaks:
        yield Section("leaks", "Shared with other sets", _leaks(audit))
    if audit.position is not None:
        yield Section("position", "Does the place decide?", _position(audit.position))
    if facts.group_sizes:
        parts = [_ties("images", facts.group_sizes), _ties("dimension", facts.ties)]
        yield Section("choices", "Choices and ties", "".join(parts))
    if facts.agreement:
        yield Section("agreement", "Do people agree?", _agreement(facts.agreement, audit))
    if facts.speed is not None:
        yield Section("speed", "How long answers took", _speed(facts.speed))
    if facts.prompts is not None:
        parts = [_prompts(facts.prompts), *(_lengths(row) for row in facts.lengths)]
        yield Section("prompts", "Prompts", "".join(parts))
    if facts.sizes is not None or facts.marks or audit.counts["generators"]:
        yield Section("images", "Images", _images(audit))


def h2(key: str, title: str) -> str:
    """A heading that links reach."""
    return f'<h2 id="{key}">{escape(title)}</h2>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table; every cell is plain text, and the first `texts` columns are set to the left."""

    def line(cells: Sequence[str], tag: str) -> str:
        told = (
            f"<{tag}{' class=text' if k < texts else ''}>{escape(cell)}</{tag}>"
            for k, cell in enumerate(cells)
        )
        return f"<tr>{''.join(told)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return (
        f'<div class="scroll"><table><thead>{line(header, "th")}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _leaks(audit: Audit) -> str:
    rows = [
        [
            leak.against,
            leak.kind,
            f"{leak.there:,} of {leak.of_there:,} ({_percent(leak.there, leak.of_there)})",
            f"{leak.choices:,} of {leak.of_choices:,} ({_percent(leak.choices, leak.of_choices)})",
            f"{leak.here:,} of {leak.of_here:,}",
        ]
        for leak in audit.facts.leaks
    ]
    header = ["other set", "what", "of the other set", "in its choices", "of this set"]
    told = "<p>A scorer that has seen a prompt or an image looks better on it than it is.</p>"
    return told + table(header, rows, 2)


def _share_bar(label: str, share: Share, told: str, *, marked: bool = False) -> Bar:
    text = f"{100 * share.value:.1f} % {told}"
    return Bar(label, share.value, text, share.low, share.high, marked)


def _position(position: PositionBias) -> str:
    picks = [
        _share_bar(name, share, f"({_range(share)})", marked=share.low > position.chance)
        for name, share in (
            ("always the first", position.always_first),
            ("always the last", position.always_last),
        )
    ]
    parts = [
        (
            f"<p>How often picking by place alone is right, in {position.choices:,} choices with a "
            f"decision; whiskers are {position.level:.0%} intervals.</p>"
        ),
        bar_chart(
            picks,
            "Picking by place",
            position.chance,
            f"chance {100 * position.chance:.1f} %",
        ),
    ]
    for slots in sorted(position.sizes, key=lambda slots: -slots.choices)[:4]:
        if slots.choices < FEW and slots.choices < position.choices:
            continue
        bars = [
            _share_bar(f"place {k + 1}", share, f"· {count:,} of {slots.choices:,}")
            for k, (count, share) in enumerate(zip(slots.counts, slots.shares, strict=True))
        ]
        parts += [
            f"<h3>Choices between {slots.size} images</h3>",
            (
                f'<p class="soft">{slots.choices:,} choices with one best image, {slots.ties:,} ties at '
                f"the best left out; equal shares: p = {slots.p_value:.2g}</p>"
            ),
            bar_chart(bars, f"{slots.size} images", 1 / slots.size, "equal"),
        ]
    return "".join(parts)


def _range(share: Share | Person) -> str:
    return f"{100 * share.low:.1f} to {100 * share.high:.1f}"


def _ties(what: str, rows: Sequence[Ties]) -> str:
    whole = sum(row.choices for row in rows)
    cells = [
        [
            row.of,
            f"{row.choices:,}",
            _percent(row.choices, whole),
            f"{row.tied_best:,} ({_percent(row.tied_best, row.choices)})",
            f"{row.all_tied:,} ({_percent(row.all_tied, row.choices)})",
        ]
        for row in rows
    ]
    return table([what, "choices", "share", "several at the best", "all tied"], cells)


def _agreement(rows: Sequence[Agreement], audit: Audit) -> str:
    whole = rows[0]
    cells = [
        [
            row.dimension,
            f"{row.questions:,}",
            f"{row.answers:,}",
            f"{row.annotators:,}",
            "–" if row.best is None else f"{100 * row.best:.1f} %",
            "–" if row.best_chance is None else f"{100 * row.best_chance:.1f} %",
            "–" if row.pairs is None else f"{100 * row.pairs:.1f} %",
            f"{100 * row.pairs_tied:.1f} %",
        ]
        for row in rows
    ]
    header = ["dimension", "questions", "answers", "people", "same best", "chance"]
    parts = [
        (
            "<p>Two people who answered the same question: how often they name the same best image, and "
            "put two images in the same order (guessing gets 50 %). Ties are left out. "
            "For agreement beyond chance, kappa and alpha, use <code>palate stats agreement</code>.</p>"
        ),
        table([*header, "same order", "orders left out"], cells),
    ]
    if whole.pairs is None or not whole.people:
        return "".join(parts)
    odd = {
        text.rsplit(": ", 1)[0]
        for finding in audit.findings
        if finding.kind == "disagreeing annotators"
        for text in finding.examples
    }
    people = whole.people
    shown = people if len(people) <= _PEOPLE else people[:_PEOPLE]
    bars = [
        Bar(
            person.name,
            person.agreement,
            f"{100 * person.agreement:.1f} % · {person.answers:,} answers",
            person.low,
            person.high,
            person.name in odd,
        )
        for person in shown
    ]
    left = "" if len(shown) == whole.annotators else f", the {len(shown)} who agree least"
    parts += [
        f"<h3>Each annotator with the others{left}</h3>",
        bar_chart(bars, "Agreement", whole.pairs, f"all {100 * whole.pairs:.1f} %"),
    ]
    return "".join(parts)


def _speed(speed: Speed) -> str:
    bins = [(f"{edge:.3g}", count) for edge, count in speed.histogram]
    parts = [
        (
            f"<p>{speed.answers:,} answers say how long they took: half of them more than "
            f"{speed.median:.3g} s, the middle half {speed.quarter:.3g} to "
            f"{speed.three_quarters:.3g} s.</p>"
        ),
        histogram(bins, "Seconds", "seconds for an answer, logarithmic (height: answers)"),
    ]
    if speed.people:
        bars = [
            Bar(pace.name, pace.median, f"{pace.median:.3g} s · {pace.answers:,} answers")
            for pace in speed.people[:10]
        ]
        parts += [
            "<h3>The fastest annotators</h3>",
            bar_chart(bars, "Median seconds", speed.median, f"median {speed.median:.3g} s"),
        ]
    return "".join(parts)


def _prompts(prompts: Prompts) -> str:
    rows = [[shortened(text, 160), f"{count:,}"] for text, count in prompts.top]
    told = (
        f"<p>{prompts.distinct:,} prompts; each has {prompts.mean:.3g} {prompts.rows} on average and "
        f"at most {prompts.largest:,}; {prompts.repeated:,} have more than one. Choices of one prompt "
        "are not independent: resample prompts.</p>"
    )
    bins = _few_bins(prompts.histogram)
    parts = [told]
    if len(bins) > 1:
        parts.append(histogram(bins, "Prompts", f"{prompts.rows} per prompt (height: prompts)"))
    if prompts.largest > 1:
        parts.append(table(["prompts asked most", prompts.rows], rows))
    return "".join(parts)


def _few_bins(counts: Sequence[tuple[int, int]], most: int = 24) -> list[tuple[str, int]]:
    """Counts by number as at most 24 bins of equal width."""
    if not counts:
        return []
    first, last = counts[0][0], counts[-1][0]
    step = max(1, -(-(last - first + 1) // most))
    bins = [0] * ((last - first) // step + 1)
    for number, count in counts:
        bins[(number - first) // step] += count
    return [
        (
            f"{first + k * step}"
            if step == 1
            else f"{first + k * step}–{first + (k + 1) * step - 1}",
            n,
        )
        for k, n in enumerate(bins)
    ]


def _lengths(lengths: Lengths) -> str:
    how = (
        "counted with a vocabulary"
        if lengths.exact
        else "estimated from below: every word, digit and run of marks is at least one token"
    )
    starts = [start for start, _ in lengths.histogram]
    step = starts[1] - starts[0] if len(starts) > 1 else 1
    limit = (lengths.limit + 1) / step
    inside = limit <= len(starts)
    return (
        f"<h3>Tokens for {lengths.encoder}, which reads {lengths.limit}</h3>"
        f'<p class="soft">{how}. {lengths.over:,} of {lengths.prompts:,} prompts '
        f"({_percent(lengths.over, lengths.prompts)}) are longer; half have more than "
        f"{lengths.median:g} tokens, the longest has {lengths.longest:,}.</p>"
        + histogram(
            [(str(start), count) for start, count in lengths.histogram],
            f"Tokens for {lengths.encoder}",
            "tokens with start and end (height: prompts)",
            limit if inside else None,
            f"{lengths.limit}",
        )
    )


def _images(audit: Audit) -> str:
    parts, sizes = [], audit.facts.sizes
    generators = audit.counts["generators"]
    if generators:
        most = sorted(generators.items(), key=lambda item: -item[1])[:20]
        bars = [Bar(name, float(count), f"{count:,} images") for name, count in most]
        parts += ["<h3>Generators</h3>", bar_chart(bars, "Images of each generator")]
    if sizes is not None:
        rows = [
            [f"{row.width} × {row.height}", f"{row.images:,}", _percent(row.images, sizes.images)]
            for row in sizes.top
        ]
        parts += [
            "<h3>Sizes</h3>",
            (
                f'<p class="soft">{sizes.distinct:,} sizes and {sizes.shapes:,} shapes; the shorter side '
                f"is {sizes.median_shorter:g} pixels for half of the images, and at least "
                f"{sizes.shortest:,}. {sizes.unknown:,} images have no recorded size.</p>"
            ),
            table(["width × height", "images", "share"], rows),
        ]
    if audit.facts.marks:
        rows = [
            [
                row.key,
                row.table,
                f"{row.rows:,}",
                f"{row.above:,} ({_percent(row.above, row.rows)})",
            ]
            for row in audit.facts.marks
        ]
        parts += [
            "<h3>Marks of unsafe content</h3>",
            table(["mark", "table", "rows", "above 0.5"], rows, 2),
        ]
    return "".join(parts)
