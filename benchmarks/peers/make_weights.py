"""Write full-size random CLIP weights in the format of the official checkpoints, 16 bits and a fixed seed.

python make_weights.py ViT-L-14 FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import open_clip
import torch

ARCHITECTURES = {"ViT-L-14": "ViT-L-14-quickgelu", "ViT-H-14": "ViT-H-14"}


def main(name: str, folder: Path) -> None:
    """Write NAME.pt: a dictionary with ``state_dict``, as align_sd and HPSv2 publish it."""
    torch.manual_seed(0)
    model = open_clip.create_model(ARCHITECTURES[name], pretrained=None)
    half = {key: value.half() for key, value in model.state_dict().items()}
    temporary = folder / f".{name}.tmp.pt"
    torch.save({"state_dict": half}, temporary)
    temporary.replace(folder / f"{name}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
