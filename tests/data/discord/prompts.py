"""Prompts as people type them: several languages, commas, quotes, emoji, mentions, parameters."""

from __future__ import annotations

import random

SUBJECTS = (
    "a red fox in snow", "portrait of an old fisherman", "cyberpunk alley at night", "a teapot",
    "castle on a floating island", "Studio photo of a Sneaker", "astronaut riding a horse",
    "ein alter Leuchtturm im Sturm", "eine Katze mit Hut", "un château dans les nuages",
    "une forêt brumeuse, à l’aube", "un gato astronauta", "ciudad futurista bajo la lluvia",
    "夕暮れの京都の路地", "雪の中の白い狐", "赛博朋克城市 夜景", "старый маяк во время шторма",
    "قصر في الصحراء", "할머니의 부엌", "a cosy café, rainy window", "isometric tiny kitchen",
)  # fmt: skip
STYLES = (
    "oil on canvas", "8k", "8 K, ultra-detailed", "Trending on ArtStation", "by Greg Rutkowski",
    "aquarell", "huile sur toile", "cinematic lighting", "f/1.4, 85mm", "unreal engine 5", "浮世绘",
    "art nouveau, Alphonse Mucha", "low poly", "film grain, Kodak Portra 400", "🌸🌸", "✨ dreamy ✨",
    "(masterpiece:1.3)", "«золотой час»", "50% off, $5", "C:\\temp\\art", "line\\nbreak",
)  # fmt: skip
ODD = (
    'a sign that says "open"', "‘quoted’ words", "it's a dog's life", "100% cotton -- really",
    "https://example.org/reference.png", "sci-fi / retro-futurism", "[a:b:0.5]", "who?!", "#1 fan",
    "👩\u200d🚀 on the moon", "e\u0301t\u00e9", "semi;colon", "x = {1, 2}", "<tag>", "&amp;",
)  # fmt: skip
CHAT = (
    "wow, love that one", "how do you get such skies?", "the third one is great!", "lol", "same seed?",
    "I prefer number 2 tbh", "please use #general for chat", "ça marche pas chez moi", "なにこれすごい",
    "is the bot down?", "gg", "what does -C do", "try -S 1234 with 100 steps", "top left is best", "🔥🔥🔥",
    "!help", "**bold claim** - but true", "seeds? anyone?", "image #3 for sure", "U2 please",
)  # fmt: skip


def prompt(rng: random.Random, mention: str = "") -> str:
    """A prompt of one to five parts; two in a hundred name a person of the channel."""
    parts = [rng.choice(SUBJECTS)]
    parts += rng.sample(STYLES, rng.choice((0, 1, 2, 2, 3)))
    if rng.random() < 0.15:
        parts.append(rng.choice(ODD))
    if mention and rng.random() < 0.02:
        parts.append(f"for {mention}")
    text = rng.choice((", ", ", ", " ", " | ")).join(parts)
    # a number of its own, so that two people's prompts are the same only where a scene wants it
    return f"{text}, {rng.choice(('no.', 'nr', 'v', '#'))} {rng.randrange(10**6)}"


def parameters(rng: random.Random) -> str:
    """Midjourney's parameters, or none."""
    some = ("--ar 16:9", "--ar 2:3", "--v 4", "--v 5.1", "--q 2", "--stylize 750", "--chaos 20")
    many = ("--no text, watermark", "--seed 1234", "--iw 0.5", "--niji 5", "--tile")
    if rng.random() < 0.35:
        return ""
    return " " + " ".join(rng.sample(some + many, rng.choice((1, 1, 2, 3))))
