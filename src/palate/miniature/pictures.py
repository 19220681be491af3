"""Pictures of the simulated world as files: read those of a table, or let the renderer draw a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from palate.data.images import hash_image, open_image
from palate.data.records import Image
from palate.data.tables import image_path, to_table, write_table
from palate.errors import DataError
from palate.miniature.world import SIZE, Array, Scene, parse_scene, pictures
from palate.runs import atomic_path, hash_text, seed_for


def load_pictures(images: Any, folder: Path) -> dict[str, UInt8[Array, "height width 3"]]:
    """Read the pictures of a table of images: key → pixels in 8 bits.

    Raises:
        DataError: if a picture is not as small as the simulated world's are.
        ImageError: if a file is missing or broken.
    """
    found = {}
    for row in images.to_pylist():
        pixels = np.asarray(open_image(image_path(row, folder)))
        if pixels.shape != (SIZE, SIZE, 3):
            raise DataError(
                f"image '{row['image']}': {pixels.shape[1]} × {pixels.shape[0]} pixels, but the"
                f" simulated world's pictures have {SIZE} × {SIZE}"
            )
        found[row["image"]] = pixels
    return found


def scenes_from(prompts: Sequence[str]) -> list[Scene]:
    """Read prompts of the simulated world.

    Raises:
        DataError: naming the first prompt that is none.
    """
    scenes = []
    for prompt in prompts:
        scene = parse_scene(prompt)
        if scene is None:
            raise DataError(
                f"'{prompt}' is not a prompt of the simulated world, such as"
                " 'a red circle above a blue square on white'"
            )
        scenes.append(scene)
    return scenes


def draw_dataset(
    prompts: Sequence[str], out: Path, *, per_prompt: int = 4, run: str = "draw"
) -> Any:
    """Let the renderer draw prompts, with the world's usual defects, into a data-set folder.

    Args:
        prompts: prompts of the simulated world.
        out: gets `images/` and `images.parquet`.
        per_prompt: pictures of each prompt.
        run: the address of the random numbers.

    Returns:
        The table of images.
    """
    scenes = [scene for scene in scenes_from(prompts) for _ in range(per_prompt)]
    drawn, _ = pictures(scenes, np.random.default_rng(seed_for(run, "pictures")))
    rows = []
    for place, (scene, pixels) in enumerate(zip(scenes, drawn, strict=True)):
        key = hash_text(run, scene.text, str(place))[:20]
        path = out / "images" / f"{key}.png"
        with atomic_path(path) as temporary:
            PIL.Image.fromarray(pixels).save(temporary, format="PNG")
        rows.append(
            Image(
                image=key,
                prompt=scene.text,
                path=f"images/{key}.png",
                sha256=hash_image(path),
                width=SIZE,
                height=SIZE,
                generator="renderer (simulated)",
            )
        )
    table = to_table(rows, Image)
    write_table(table, out / "images.parquet")
    return table
