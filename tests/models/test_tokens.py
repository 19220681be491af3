"""Tokens are those of the official tokenizer, and cuts are told."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import CheckpointError
from palate.models.tokens import END, START, Tokenizer, byte_pieces, find_tokenizer, read_tokenizer

FOLDER = Path(__file__).parents[1] / "parity" / "fixtures" / "tokenizer"
OFFICIAL = FOLDER / "bpe_small.txt.gz"
CASES = json.loads((FOLDER / "openai_ids.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return read_tokenizer(OFFICIAL, vocabulary_size=964)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"][:20])
def test_the_official_file_gives_the_official_numbers(tokenizer, case):
    assert tokenizer.batch([case["prompt"]]).ids[0].tolist() == case["ids"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"][:20])
def test_the_folder_gives_the_official_numbers(case):
    reader = read_tokenizer(FOLDER, pad=0, clean="openai")
    assert reader.batch([case["prompt"]]).ids[0].tolist() == case["ids"]


def test_all_prompts_at_once_are_the_same_as_alone(tokenizer):
    together = tokenizer.batch([case["prompt"] for case in CASES])
    assert together.ids.tolist() == [case["ids"] for case in CASES]


def slow_pairs(tokenizer: Tokenizer, word: str) -> list[int]:
    """Byte-pair encoding as openai/CLIP writes it: merge the best pair everywhere, again and again."""
    alphabet = byte_pieces()[:256]
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order += [byte for byte in range(256) if byte not in order]
    spelled = [alphabet[order.index(byte)] for byte in word.encode("utf-8")]
    spelled[-1] += "</w>"
    ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    while len(spelled) > 1:
        pairs = list(pairwise(spelled))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged, place = [], 0
        while place < len(spelled):
            if tuple(spelled[place : place + 2]) == best:
                merged.append("".join(best))
                place += 2
            else:
                merged.append(spelled[place])
                place += 1
        spelled = merged
    return [tokenizer.vocabulary[piece] for piece in spelled]


@given(st.text(alphabet=st.characters(categories=["Ll", "Lo"]), min_size=1, max_size=30))
def test_words_are_merged_as_in_the_slow_official_way(word):
    reader = read_tokenizer(OFFICIAL)
    word = reader.cleaned(word)
    if not word or not word.isalpha():  # a clean-up can split or empty a word
        return
    assert reader.ids(word)[0][1:-1] == slow_pairs(reader, word)


@given(st.text(max_size=200))
def test_any_text_has_tokens_that_the_network_knows(text):
    tokens = read_tokenizer(OFFICIAL).batch([text])
    assert tokens.ids.shape == (1, 77)
    assert int(tokens.ids.min()) >= 0
    assert int(tokens.ids.max()) <= 963
    assert 2 <= tokens.kept[0] <= tokens.given[0]


def test_a_prompt_of_ten_thousand_letters_is_cut_with_the_end_token_last(tokenizer):
    tokens = tokenizer.batch(["q" * 10_000])
    assert tokens.ids[0, -1] == tokenizer.end
    assert tokens.kept.tolist() == [77]
    assert tokens.given[0] > 1000


def test_no_prompts_give_no_rows(tokenizer):
    tokens = tokenizer.batch([])
    assert tokens.ids.shape == (0, 77)
    assert tokens.given.shape == tokens.kept.shape == (0,)


def test_the_literal_end_token_is_the_end_token_as_in_openai_clip(tokenizer):
    assert tokenizer.ids(f"a {END} b")[0].count(tokenizer.end) == 2


def test_entities_are_resolved_twice_by_openai_and_once_by_transformers(tokenizer):
    other = read_tokenizer(FOLDER)
    assert tokenizer.cleaned("A &amp;amp; B\n\n C") == "a & b c"
    assert other.cleaned("A &amp; B\n\n C") == "a & b c"
    assert other.clean == "transformers"
    assert other.pad == other.end


def test_a_piece_outside_the_vocabulary_is_given_but_not_kept():
    small = Tokenizer({"a</w>": 0, "b</w>": 1, START: 2, END: 3}, [], context=8)
    tokens = small.batch(["a z b"])
    assert tokens.ids[0].tolist() == [2, 0, 1, 3, 0, 0, 0, 0]
    assert (tokens.given[0], tokens.kept[0]) == (5, 4)


def test_saved_files_read_back_and_load_in_transformers(tokenizer, tmp_path):
    for name, text in tokenizer.files().items():
        (tmp_path / name).write_text(text, "utf-8")
    again = read_tokenizer(tmp_path, pad=0, clean="openai")
    assert again.vocabulary == tokenizer.vocabulary
    assert again.merges == tokenizer.merges
    from transformers import CLIPTokenizer

    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    prompt = CASES[0]["prompt"]
    assert theirs(prompt).input_ids == tokenizer.ids(prompt)[0]


def test_a_folder_that_transformers_5_saved_reads(tokenizer, tmp_path):
    from transformers import CLIPTokenizer

    CLIPTokenizer.from_pretrained(FOLDER).save_pretrained(tmp_path)
    (tmp_path / "vocab.json").unlink(missing_ok=True)
    again = read_tokenizer(tmp_path)
    assert again.vocabulary == tokenizer.vocabulary
    assert again.ids("a red fox") == tokenizer.ids("a red fox")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no gzip", "not a gzip file"),
        (gzip.compress(b"#version\na b\nc\n", mtime=0), "byte-pair merges"),
        (gzip.compress(b"#version\na b\n", mtime=0), "found 1 byte-pair merges, expected 450"),
    ],
)
def test_a_wrong_vocabulary_file_is_refused_in_a_sentence(tmp_path, content, told):
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=told):
        read_tokenizer(path, vocabulary_size=964)


def test_wrong_places_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="no such tokenizer"):
        read_tokenizer(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"expected vocab\.json"):
        read_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match="964 pieces, but the weights know 100"):
        read_tokenizer(FOLDER, vocabulary_size=100)
    with pytest.raises(CheckpointError, match="lacks"):
        Tokenizer({"a": 0}, [])
    with pytest.raises(CheckpointError, match="do not belong together"):
        Tokenizer({START: 0, END: 1}, [("a", "b")])


def test_a_tokenizer_is_found_beside_weights(tmp_path):
    assert find_tokenizer(tmp_path) is None
    assert find_tokenizer(FOLDER) == FOLDER
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").touch()
    assert find_tokenizer(tmp_path) == tmp_path / "bpe_simple_vocab_16e6.txt.gz"


def test_the_real_vocabulary_gives_known_numbers(shared):
    path = shared / "data" / "clip_tokenizer" / "bpe_simple_vocab_16e6.txt.gz"
    reader = read_tokenizer(path, vocabulary_size=49_408)
    # the example that openai/CLIP and transformers print for ViT-B/32
    assert reader.ids("a photo of a cat")[0] == [49406, 320, 1125, 539, 320, 2368, 49407]
