"""Word pieces are those of the slow BertTokenizer that the official ImageReward uses."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import CheckpointError
from palate.models.word_pieces import WordPieces, read_word_pieces

FILE = Path(__file__).parents[1] / "parity" / "fixtures" / "image_reward" / "vocab.txt"
WORDS = read_word_pieces(FILE)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
CHINESE = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)


def slow_words(text: str) -> list[str]:
    """BERT's basic tokenizer, one rule after the other: clean, split off Chinese, lower, strip, split."""
    kept = []
    for letter in text:
        if unicodedata.category(letter).startswith("Z") or letter in "\t\n\r":
            kept.append(" ")
        elif any(first <= ord(letter) <= last for first, last in CHINESE):
            kept.append(f" {letter} ")
        elif letter != "\ufffd" and not unicodedata.category(letter).startswith("C"):
            kept.append(letter)
    cleaned = "".join(letter.lower() for letter in "".join(kept))
    plain = unicodedata.normalize("NFD", cleaned)
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Mn")
    apart = []
    for letter in plain:
        symbol = letter.isascii() and letter.isprintable() and not letter.isalnum()
        punctuation = unicodedata.category(letter).startswith("P") or (symbol and letter != " ")
        apart.append(f" {letter} " if punctuation else letter)
    return "".join(apart).split()


def slow_pieces(word: str, vocabulary: dict[str, int]) -> list[int]:
    """The longest known beginning, again and again; a word with an unknown rest is unknown."""
    numbers, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                numbers.append(vocabulary[piece])
                start = end
                break
        else:
            return [vocabulary["[UNK]"]]
    return numbers if len(word) <= 100 else [vocabulary["[UNK]"]]


def slow_ids(text: str) -> list[int]:
    vocabulary = {piece: number for number, piece in enumerate(WORDS.pieces)}
    added = vocabulary | {"[DEC]": len(vocabulary), "[ENC]": len(vocabulary) + 1}
    numbers = []
    for part in re.split("(" + "|".join(map(re.escape, SPECIAL)) + ")", text):
        if part in SPECIAL:
            numbers.append(added[part])
        else:
            numbers += [n for word in slow_words(part) for n in slow_pieces(word, vocabulary)]
    return [vocabulary["[CLS]"], *numbers, vocabulary["[SEP]"]]


def settled(letter: str) -> bool:
    """Whether a character has been the same since Unicode 3.2, whatever table a library has."""
    old = unicodedata.ucd_3_2_0.category(letter)
    return old != "Cn" and old == unicodedata.category(letter)


LETTERS = st.one_of(
    st.sampled_from("aeiou fox 0189,.!&;"),
    st.sampled_from("ÀéİıßẞΣςσÅK猫犬豈שלוםمرحبا☕★—“”’…\t\n\r\u00a0\u2028\u200d\ufe0f\x00\x1f\x85"),
    st.characters(exclude_categories=["Cs", "Cn"]).filter(settled),
)
TEXTS = st.lists(st.one_of(LETTERS, st.sampled_from([*SPECIAL, "robot", "watercolor", "[sep]"])))


@given(TEXTS.map("".join))
def test_any_text_has_the_tokens_of_the_slow_tokenizer(text):
    assert WORDS.ids(text) == slow_ids(text)


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("", []),
        ("A Red FOX", ["a", "red", "fox"]),
        ("cafés", ["c", "##a", "##f", "##e", "##s"]),
        ("fox,fox!!", ["fox", ",", "fox", "!", "!"]),
        ("猫on a boat", ["[UNK]", "on", "a", "boat"]),
        ("fox 😀 שלום", ["fox", "[UNK]", "[UNK]"]),
        ("fo\u200dx", ["fox"]),
        ("fo\ud800x", ["fox"]),
        ("a[SEP]b [sep]", ["a", "[SEP]", "b", "[UNK]", "s", "##e", "##p", "[UNK]"]),
        ("a" * 101, ["[UNK]"]),
    ],
)
def test_words_are_cut_into_pieces(prompt, pieces):
    expected = [WORDS.pieces.index(piece) for piece in ["[CLS]", *pieces, "[SEP]"]]
    assert WORDS.ids(prompt) == expected


def test_blip_adds_two_tokens_behind_the_vocabulary():
    assert WORDS.size == len(WORDS.pieces) + 2 == 216
    assert WORDS.ids("[DEC] [ENC] [enc]")[1:3] == [214, 215]
    assert WORDS.ids("[DEC] [ENC] [enc]").count(215) == 1


def test_a_batch_is_padded_and_masked():
    tokens = WORDS.batch(["a red fox", ""])
    fox = [WORDS.pieces.index(piece) for piece in ("[CLS]", "a", "red", "fox", "[SEP]")]
    assert tokens.ids.tolist() == [[*fox, *[0] * 30], [2, 3, *[0] * 33]]
    assert tokens.mask.tolist() == [[1] * 5 + [0] * 30, [1] * 2 + [0] * 33]
    assert tokens.given.tolist() == tokens.kept.tolist() == [5, 2]


def test_a_literal_padding_token_is_seen_as_in_the_official_code():
    tokens = WORDS.batch(["a [PAD] b"])
    assert tokens.ids[0, 2] == 0
    assert tokens.mask[0].sum() == tokens.kept[0] == 5


@pytest.mark.parametrize("prompt", ["fox " * 2_500, "x, " * 3_000, "שלום " * 2_000, "😀 " * 5_000])
def test_a_prompt_of_ten_thousand_letters_is_cut_with_the_end_token_last(prompt):
    tokens = WORDS.batch([prompt])
    whole = slow_ids(prompt)
    assert tokens.given.tolist() == [len(whole)]
    assert tokens.kept.tolist() == [35]
    assert tokens.ids[0].tolist() == [*whole[:34], WORDS.end]
    assert tokens.mask.all()


def test_one_word_of_ten_thousand_letters_is_one_unknown_word():
    assert WORDS.ids("q" * 10_000) == [WORDS.start, 1, WORDS.end]


def test_no_prompts_give_no_rows():
    tokens = WORDS.batch([])
    assert tokens.ids.shape == tokens.mask.shape == (0, 35)
    assert tokens.given.shape == tokens.kept.shape == (0,)


def test_it_agrees_with_transformers():
    from transformers import BertTokenizer

    theirs = BertTokenizer.from_pretrained(FILE.parent)
    for prompt in ("Two   Robots &amp; one cat, 8k!!!", "café — 猫 on a boat 😀", "", "fox " * 100):
        found = theirs(prompt, padding="max_length", truncation=True, max_length=35)
        tokens = WORDS.batch([prompt])
        assert tokens.ids[0].tolist() == found["input_ids"]
        assert tokens.mask[0].tolist() == found["attention_mask"]


def test_a_saved_file_reads_back(tmp_path):
    for name, text in WORDS.files().items():
        (tmp_path / name).write_text(text, "utf-8")
    assert (tmp_path / "vocab.txt").read_bytes() == FILE.read_bytes()
    assert read_word_pieces(tmp_path, context=8).batch(["fox"]).ids.shape == (1, 8)


def test_a_wrong_vocabulary_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="no such vocabulary file, expected BERT"):
        read_word_pieces(tmp_path)
    with pytest.raises(CheckpointError, match=r"216 pieces with \[DEC\] and \[ENC\], but .* 300"):
        read_word_pieces(FILE, vocabulary_size=300)
    with pytest.raises(CheckpointError, match=r"lacks \[CLS\], \[MASK\]"):
        WordPieces(["[PAD]", "[UNK]", "[SEP]"])
    with pytest.raises(CheckpointError, match="holds the piece 'a' twice"):
        WordPieces(["a", *SPECIAL, "a"])
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"vocab\.txt: not a readable text file"):
        read_word_pieces(path)
    path.write_text("a\nb\n")
    with pytest.raises(CheckpointError, match=r"vocab\.txt: the vocabulary of 2 pieces lacks"):
        read_word_pieces(path)
