"""What is known of where weights come from: code and licence, for each kind of aesthetic head."""

from __future__ import annotations

from dataclasses import dataclass

from palate.models.aesthetic import Kind


@dataclass(frozen=True, slots=True)
class Terms:
    """What a scorer is, which official code path it equals, and the licence of its weights."""

    what: str
    matches: str
    licence: str


_LAION_V2 = "christophschuhmann/improved-aesthetic-predictor"
# The catalogue has one entry for all heads; which it is, only the file tells.
HEADS: dict[Kind, Terms] = {
    "laion-v1": Terms(
        "LAION's first aesthetic head, a linear rating of the image alone",
        "LAION-AI/aesthetic-predictor",
        "MIT",
    ),
    "laion-v2": Terms(
        "LAION's second aesthetic head, a rating of the image alone by five linear layers",
        _LAION_V2,
        f"Apache-2.0 (that of the repository {_LAION_V2})",
    ),
    "laion-v2-relu": Terms(
        "the sibling with ReLUs of LAION's second aesthetic head, a rating of the image alone by five layers",
        f"{_LAION_V2} avaclipmlp_inf_wds-relu.py",
        f"Apache-2.0 (that of the repository {_LAION_V2})",
    ),
    "simulacra": Terms(
        "a Simulacra aesthetic head, a linear rating of the image alone",
        "crowsonkb/simulacra-aesthetic-models",
        "MIT",
    ),
}
