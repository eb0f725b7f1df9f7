"""Plain English for synthetic handwriting: a small grammar over common words and numbers."""

from collections.abc import Iterator

import numpy as np

_DETERMINERS = "the the the a a this that every another one his her their our no some".split()
_ADJECTIVES = (
    "old small quiet bright heavy early green narrow broken clever empty frozen gentle hidden "
    "jolly lazy modern northern open patient quick rough simple tired unusual vivid warm young "
    "exact golden blue dusty honest royal zealous"
).split()
_NOUNS = (
    "river garden window letter kitchen engine village question teacher market harbour museum "
    "journey winter bridge paper doctor forest ladder office pocket quarter shoulder theatre "
    "uncle valley whistle yard zebra apple basket candle dinner evening fox island jacket knife "
    "morning number orange picture queen summer ticket box judge clock wave puzzle"
).split()
_VERBS = (
    "found opened watched painted carried followed answered crossed built remembered forgot "
    "measured covered visited kept needed joined avoided examined questioned heard sold fixed "
    "left moved organised reached studied touched understood"
).split()
_ENDINGS = (
    "slowly; again; today; quickly; before noon; rarely; in silence; by accident; with joy; "
    "yesterday; after dark; without a word; exactly twice; next to me; in the year"
).split("; ")
_LINKS = ", and; , but; , so; because; while; when; until".split("; ")


def _noun_phrase(rng: np.random.Generator) -> list[str]:
    words = [str(rng.choice(_DETERMINERS))]
    if rng.random() < 0.45:
        words.append(str(rng.choice(_ADJECTIVES)))
    words.append(str(rng.choice(_NOUNS)))
    # "a" before a vowel is the one rule that would catch the eye.
    if words[0] == "a" and words[1][0] in "aeio":
        words[0] = "an"
    return words


def _clause(rng: np.random.Generator) -> list[str]:
    words = [*_noun_phrase(rng), str(rng.choice(_VERBS)), *_noun_phrase(rng)]
    if rng.random() < 0.4:
        ending = str(rng.choice(_ENDINGS))
        words += ending.split()
        if ending == "in the year":
            words.append(str(rng.integers(1000, 2030)))
    return words


def words(rng: np.random.Generator) -> Iterator[str]:
    """Yields the words of an endless text in ASCII, with capitals and punctuation attached."""
    while True:
        sentence = _clause(rng)
        if rng.random() < 0.4:
            link = str(rng.choice(_LINKS))
            if link.startswith(", "):
                sentence[-1] += ","
            sentence += [link.removeprefix(", "), *_clause(rng)]
        sentence[0] = sentence[0].capitalize()
        sentence[-1] += "?" if rng.random() < 0.08 else "."
        yield from sentence


def lines(rng: np.random.Generator, num_lines: int, max_chars: int) -> list[str]:
    """Breaks a text into lines of whole words, each as full as the next word allows.

    `max_chars`, the most characters of a line, is at least that of the longest word.
    """
    source = words(rng)
    result = []
    line = next(source)
    while len(result) < num_lines:
        word = next(source)
        if len(line) + 1 + len(word) <= max_chars:
            line += f" {word}"
        else:
            result.append(line)
            line = word
    return result
