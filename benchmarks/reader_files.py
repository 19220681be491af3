"""Write a file of any size in the official layout of each set, for readers.py.

python benchmarks/reader_files.py hpd-v1 5000 FOLDER    # prints what was written, as JSON

Rows are made as they are written. The number is that of the choices, or of the images of a set without
choices. No image files are made for tables that only name them, except where a set is nothing without.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import reader_images as images
import reader_tables as tables
from reader_tables import Written

FILES: dict[str, Callable[[Path, int], Written]] = {
    "hpd-v1": tables.hpd_v1,
    "hpd-v2 pairs": tables.hpd_v2_pairs,
    "hpd-v2 rankings": tables.hpd_v2_rankings,
    "image-reward": tables.image_reward,
    "image-reward rows": tables.image_reward_db,
    "pick-a-pic": tables.pick_a_pic,
    "agiqa-3k": tables.agiqa_3k,
    "agiqa-1k": tables.agiqa_1k,
    "mhp": tables.mhp,
    "rich-hf": images.rich_hf,
    "simulacra": images.simulacra,
    "ratings": tables.ratings,
    "folder": images.folder,
    "diffusion-db": tables.diffusion_db,
    "hps-benchmark": images.hps_benchmark,
    "webdataset": images.webdataset,
    "webdataset own": images.webdataset_own,
}


def main() -> None:
    """Write one file and say where it is."""
    name, count, where = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    made = FILES[name](where, count)
    whole = made.path if made.path.is_file() else where
    files = [whole] if whole.is_file() else [one for one in whole.rglob("*") if one.is_file()]
    told = {
        "path": str(made.path),
        "images": None if made.images is None else str(made.images),
        "settings": made.settings or {},
        "bytes": sum(one.stat().st_size for one in files if one.suffix != ".source"),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
