"""The model card of a converted folder: what it is, for people and for the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palate.models.mps_condition import CONDITIONS
from palate.models.pixels import Preparation
from palate.scoring.catalog import SCORERS
from palate.scoring.networks import AestheticScorer, ClipScorer, ImageRewardScorer, MpsScorer
from palate.scoring.scorer import Scorer
from palate.scoring.terms import HEADS, Terms
from palate.scoring.units import describe_unit

_COMPARE = "Scores of one prompt's images compare; scores of different prompts do not."
_HERE = "path/to/this/folder"
# The Hub's words for the licences that are known; of the others the text says what is.
_LICENCES = {"MIT": "mit", "Apache-2.0": "apache-2.0"}
_RESIZES = {
    "shorter": "the shorter edge is brought to {size} pixels and the middle cropped",
    "longer": "the longer edge is brought to {size} pixels and the rest padded with black",
    "exact": "the image is stretched to {size} × {size} pixels",
}


def terms_of(scorer: Scorer) -> Terms:
    """Give what is known of a scorer of the catalogue; of an aesthetic head, by its kind."""
    if isinstance(scorer, AestheticScorer):
        return HEADS[scorer.head.kind]
    facts = scorer.facts()
    return Terms(SCORERS[scorer.name].what, facts["matches"], facts["licence"])


@dataclass(frozen=True, slots=True)
class Origin:
    """A checkpoint that a folder was converted from; ``source`` is its name or its Hub id.

    ``clip`` is the CLIP beside an aesthetic head.
    """

    file: str
    source: str
    bytes: int
    sha256: str
    revision: str | None = None
    clip: Origin | None = None

    def line(self) -> str:
        """Write the file in words."""
        named = f"`{self.source}`: " if self.source != self.file else ""
        return f"{named}`{self.file}`, {self.bytes:,} bytes, SHA-256 `{self.sha256}`"


def write_model_card(scorer: Scorer, origin: Origin, *, half: bool, loss: float | None) -> str:
    """Write the README.md of a converted folder: YAML that the Hub reads, then text with runnable examples.

    ``loss`` is the largest change of a score by 16-bit weights that was seen, in the scorer's unit, or None where no
    weight changed.
    """
    facts, terms = scorer.facts(), terms_of(scorer)
    title = f"{scorer.name}@{facts['profile']}"
    rows = {
        "Scorer": f"`{title}`, dimension {scorer.dimension}",
        "Unit": f"{scorer.unit}: {describe_unit(scorer.unit)}; higher is better",
        "Official path": terms.matches,
        "Converted from": origin.line(),
        **({"Kind of head": facts["head"]} if "head" in facts else {}),
        "Weights": _weights(scorer.unit, half=half, loss=loss),
        "Fingerprint": f"`{scorer.fingerprint}`",
    } | _licences(scorer, terms, origin)
    table = "\n".join(f"| {name} | {text} |" for name, text in rows.items())
    parts = [
        _front_matter(scorer, terms.licence),
        f"# {title}\n\nThis is {terms.what}.",
        f"| | |\n| --- | --- |\n{table}",
        *([_COMPARE] if scorer.reads_prompts else []),
        f"## Use with Palate\n\n{_use_palate(scorer, facts)}",
    ]
    if isinstance(scorer, ClipScorer):
        parts.append(f"## Use with transformers\n\n{_use_transformers(scorer)}")
    images = f"**Images.** {preparation_in_words(facts['preparation'])}"
    parts.append(f"## Preparation\n\n{images}\n\n**Prompts.** {_prompts(scorer, facts)}")
    return "\n\n".join(parts) + "\n"


def _licences(scorer: Scorer, terms: Terms, origin: Origin) -> dict[str, str]:
    """Write the licences of what is in the folder: beside an aesthetic head, there is a CLIP that has its own."""
    if not isinstance(scorer, AestheticScorer):
        return {"Licence of the weights": terms.licence}
    clip = origin.clip.line() if origin.clip else "that of the source folder"
    return {
        "Licence of the head": terms.licence,
        "CLIP in this folder": f"{clip}; licence: its own, not known here",
    }


def _front_matter(scorer: Scorer, licence: str) -> str:
    """Write what the Hub reads. Only a plain CLIP is something that transformers can load."""
    if isinstance(scorer, AestheticScorer):
        licence = "that of the CLIP is not known"
    plain = isinstance(scorer, ClipScorer)
    tags = ["palate", "text-to-image", "human-preference", scorer.name, *["clip"] * plain]
    lines = [f"library_name: {'transformers' if plain else 'palate'}"]
    lines += [f"license: {_LICENCES.get(licence, 'unknown')}", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in tags), "---"])


def _weights(unit: str, *, half: bool, loss: float | None) -> str:
    stored = f"stored in {16 if half else 32} bits, computed with in float32"
    if loss is None:
        return f"{stored}; scores are those of the source file, bit for bit"
    return f"{stored}; on made-up pictures, scores differ from the source file's by up to {loss:.2g} {unit}"


def _use_palate(scorer: Scorer, facts: Mapping[str, Any]) -> str:
    default = facts["profile"] == next(iter(SCORERS[scorer.name].profiles))
    name = scorer.name if default else f"{scorer.name}@{facts['profile']}"
    prompt = ', "a red fox"' if scorer.reads_prompts else ""
    more = ""
    if isinstance(scorer, MpsScorer):
        more = (
            "\n\n`load` also takes `condition=`, one of "
            f"{', '.join(CONDITIONS)} or words of your own, and `mask_threshold=`."
        )
    return f"""```python
from palate import load

scorer = load("{name}", "{_HERE}")  # or its id on the Hub
print(scorer.score(["one.png", "another.png"]{prompt}))
```{more}"""


def _use_transformers(scorer: ClipScorer) -> str:
    """Show the cosine by transformers alone, and say in what it may differ."""
    how = scorer.clip.preparation
    expressible = how.domain == "pil" and how.resize != "longer"
    imports = ["from PIL import Image", "from transformers import CLIPModel, CLIPTokenizer"]
    if expressible:
        imports[1] = imports[1].replace("CLIPModel", "CLIPImageProcessor, CLIPModel")
        pixels = """CLIPImageProcessor.from_pretrained(folder)(image, return_tensors="pt").pixel_values"""
        notes = ["It differs from Palate where transformers resizes by other means than Pillow."]
    else:
        imports[1:1] = ["from palate import load", "from palate.models.pixels import prepare"]
        pixels = f"""prepare([image], load("{scorer.name}", folder).eye.preparation)"""
        notes = ["transformers cannot express this preparation of images, so that is Palate's."]
    if expressible and how.convert == "after":
        notes.append("Palettes and transparency become RGB before the resize, not after it.")
    notes.append("Mojibake in prompts is not repaired.")
    if scorer.clip.tokenizer.clean == "openai":
        notes[-1] = "Mojibake in prompts is not repaired, nor are HTML entities resolved."
    lines = "\n".join(imports)
    return f"""```python
{lines}

folder = "{_HERE}"
model = CLIPModel.from_pretrained(folder).float()
tokenizer = CLIPTokenizer.from_pretrained(folder)
image = Image.open("one.png")
pixels = {pixels}
tokens = tokenizer("{scorer.prefix}a red fox", truncation=True, return_tensors="pt")
cosine = model(pixel_values=pixels, **tokens).logits_per_image / model.logit_scale.exp()
```

{" ".join(notes)}"""


def preparation_in_words(how: Preparation) -> str:
    """Say in words what is done to an image."""
    colour = f"it becomes RGB {how.convert} the resize"
    where = "by Pillow in 8 bits"
    if how.domain == "tensor":
        colour = "it becomes RGB first"
        where = f"as floats, {'with' if how.antialias else 'without'} antialiasing"
    return (
        f"Each is prepared alone: {_RESIZES[how.resize].format(size=how.size)} "
        f"({how.interpolation}, {where}; {colour}), then the mean {_three(how.mean)} is subtracted and divided "
        f"by {_three(how.std)}."
    )


def _three(values: tuple[float, float, float]) -> str:
    return f"({', '.join(map(str, values))})"


def _prompts(scorer: Scorer, facts: Mapping[str, Any]) -> str:
    """Say in words what is done to a prompt."""
    if not scorer.reads_prompts:
        return "They are not read."
    tokens = facts["tokens"]
    cut = f"cut to {tokens['context']} tokens, the end token kept last"
    if isinstance(scorer, ImageRewardScorer):
        return f"They become word pieces of the uncased BERT, {cut}."
    prefix = scorer.prefix if isinstance(scorer, ClipScorer) else ""
    before = f"“{prefix}” is put before them. " if prefix else ""
    entities = ", HTML entities are resolved" if tokens["clean"] == "openai" else ""
    return (
        f"{before}Mojibake is repaired{entities}, white space joined, letters made small; "
        f"{cut}; padded with token {tokens['pad']}."
    )
