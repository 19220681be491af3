"""A prompts file serves each image by its own line, or says why it cannot."""

from __future__ import annotations

import pytest
from PIL import Image as Picture

from palate.errors import DataError
from palate.scoring.inputs import gather_images


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two pictures of one name in two folders."""
    for place in ("a", "b"):
        (tmp_path / "dup" / place).mkdir(parents=True)
        Picture.new("RGB", (8, 8), "red").save(tmp_path / "dup" / place / "1.png")
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "dup").relative_to(tmp_path)


def test_a_bare_name_never_serves_two_images(folder, tmp_path):
    lines = tmp_path / "p.csv"
    lines.write_text("image,prompt\n1.png,a fox\n")
    told = (
        r"p\.csv: '1\.png' may be 'dup/a/1\.png' or 'dup/b/1\.png'; expected each with its folder"
    )
    for paths in ([folder], [folder / "a", folder / "b"], [folder / "a" / "1.png", folder / "b"]):
        with pytest.raises(DataError, match=told):
            gather_images(paths, prompts=lines)
    (folder / "prompts.csv").write_text(lines.read_text())
    with pytest.raises(DataError, match=r"prompts\.csv: '1\.png' may be"):
        gather_images([folder])
    manifest = tmp_path / "pairs.csv"
    manifest.write_text("image\ndup/a/1.png\ndup/b/1.png\n")
    with pytest.raises(DataError, match=told):
        gather_images([manifest], prompts=lines)


def test_a_name_with_its_folder_serves_its_image(folder, tmp_path):
    lines = tmp_path / "p.csv"
    lines.write_text("image,prompt\na/1.png,a fox\nb/1.png,a cat\n")
    found = gather_images([folder], prompts=lines).images
    assert found["prompt"].to_pylist() == ["a fox", "a cat"]
    lines.write_text("image,prompt\na/1.png,a fox\n1.png,a cat\n")
    found = gather_images([folder], prompts=lines).images
    assert found["prompt"].to_pylist() == ["a fox", "a cat"]


def test_a_prompt_that_is_lacking_is_the_prompts_files_fault(folder, tmp_path):
    (tmp_path / "manx.csv").write_text("image\ndup/a/1.png\n")
    (tmp_path / "pp.csv").write_text("image,prompt\n2.png,a fox\n")
    with pytest.raises(DataError, match=r"pp\.csv: has no prompt for image 'dup/a/1\.png'"):
        gather_images([tmp_path / "manx.csv"], prompts=tmp_path / "pp.csv")
