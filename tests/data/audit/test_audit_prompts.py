"""An audit counts how often each prompt was asked, and how much of it an encoder reads."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from palate.data.audit.audit import Audit, audit_dataset
from palate.data.audit.prompts import estimate_blip, estimate_clip
from palate.data.records import Choice, Image
from palate.data.tables import Dataset, to_table


def look(prompts: list[str], **more) -> Audit:
    rows = [
        Choice(f"c{k}", text, (f"{k}a", f"{k}b"), (1, 2) if k % 2 else (2, 1))
        for k, text in enumerate(prompts)
    ]
    data = Dataset(to_table([], "images"), to_table(rows, "choices"), Path("nowhere"))
    return audit_dataset(data, **more)


def kinds(audit: Audit) -> dict[str, tuple[str, int]]:
    return {f.kind: (f.level, f.count) for f in audit.findings if f.kind != "unknown annotators"}


def test_prompts_are_counted() -> None:
    audit = look(["a", "b", "b", "c", "c", "c"])
    facts = audit.facts.prompts
    assert facts is not None
    assert (facts.distinct, facts.repeated, facts.largest, facts.mean) == (3, 2, 3, 2.0)
    assert facts.histogram == ((1, 1), (2, 1), (3, 1))
    assert facts.top == (("c", 3), ("b", 2), ("a", 1))
    assert kinds(audit) == {}


def test_a_prompt_that_dominates_is_named() -> None:
    prompts = [f"p{k}" for k in range(20)]
    audit = look([*prompts, *["busy"] * 9])
    told = next(f for f in audit.findings if f.kind == "dominating prompts")
    assert (told.level, told.count) == ("warning", 1)
    assert told.examples == ("'busy': 9 of 29",)
    assert kinds(look([*prompts, *["busy"] * 5])) == {}


def test_prompts_in_two_spellings_are_told() -> None:
    audit = look(["A  fox", "a fox", "a cat", "A FOX "])
    assert kinds(audit) == {"respelled prompts": ("note", 1)}
    assert audit.facts.prompts is not None
    assert audit.facts.prompts.respelled == 2


def test_images_are_counted_where_nobody_chose() -> None:
    images = [Image(f"i{k}", "p" if k else "q") for k in range(4)]
    data = Dataset(to_table(images, "images"), to_table([], "choices"), Path("nowhere"))
    facts = audit_dataset(data).facts.prompts
    assert facts is not None
    assert (facts.rows, facts.top) == ("images", (("p", 3), ("q", 1)))


def test_long_prompts_are_estimated_or_counted() -> None:
    prompts = ["fox " * 76, "fox " * 33, "fox " * 34, "fox"]
    audit = look(prompts)
    clip, blip = audit.facts.lengths
    assert (clip.encoder, clip.limit, clip.exact, clip.over) == ("CLIP", 77, False, 1)
    assert (blip.encoder, blip.limit, blip.exact, blip.over) == ("BLIP", 35, False, 2)
    assert (clip.longest, clip.rows_over, clip.rows) == (78, 1, 4)
    told = [f for f in audit.findings if f.kind == "long prompts"]
    assert [f.level for f in told] == ["note", "note"]
    assert "1 of 4 prompts (25.0%), in 25.0% of the choices, have more than 77 tokens" in (
        told[0].message
    )
    assert "estimated from below" in told[0].message
    counted = look(prompts, counters={"CLIP": lambda text: 3 * len(text.split()) + 2})
    clip, blip = counted.facts.lengths
    assert (clip.exact, clip.over, blip.exact) == (True, 3, False)
    told = [f for f in counted.findings if f.kind == "long prompts"]
    assert "estimated" not in told[0].message
    assert told[0].examples[0].startswith("230 tokens: fox")


texts = st.text(max_size=60) | st.text(
    st.sampled_from("aB 9_'’-.,;&#x27amp!²½é字🦊\n\t\u00a0\u0301"), max_size=60
)


@given(texts)
@example("&amp;amp;lt; it's 4k!!! m² ½ a__b <|endoftext|>")
def test_the_estimate_for_clip_is_never_above_the_truth(shared, text: str) -> None:
    tokenizer = clip(shared)
    for clean in ("openai", "transformers"):
        tokenizer.clean = clean
        numbers, lost = tokenizer.ids(text)
        # ftfy mends mojibake, which can join characters: only text that it leaves alone is promised
        if tokenizer.cleaned(text) == " ".join(text.lower().split()):
            assert estimate_clip(text) <= len(numbers) + lost or "<|" in text


def clip(shared, kept: list[object] = []):  # noqa: B006 - read once
    if not kept:
        from palate.models.tokens import read_tokenizer

        kept.append(read_tokenizer(shared / "data/clip_tokenizer"))
    return kept[0]


@given(texts)
@example("[UNK] don't 4k, a_b ½ \u0301")
def test_the_estimate_for_blip_is_never_above_the_truth(text: str) -> None:
    from palate.models.word_pieces import WordPieces

    # every word is unknown, and an unknown word is one piece: as few as there can be
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if "[" not in text:
        assert estimate_blip(text) <= len(WordPieces(pieces).ids(text))


def test_the_estimates_of_plain_prompts_are_close(shared) -> None:
    prompt = "a portrait of a fox, highly detailed, 4 k, by greg rutkowski"
    numbers, _ = clip(shared).ids(prompt)
    assert 0 <= len(numbers) - estimate_clip(prompt) <= 3
