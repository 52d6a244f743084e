# Step 1 of 3: look at the context, split it into chunks, and count the question's words in them.
import math
import re
import unicodedata

names = set(names)
texts = context.values() if hasattr(context, "values") else context
sources = [texts] if isinstance(texts, str) else list(texts)
if not all(isinstance(source, str) for source in sources):  # of data, the JSON
    sources = [globals()[f"context_{n}"] for n in range(len(context_metadata["sources"]))]
total = sum(map(len, sources))
size = min(max(total // 20, 10_000), 50_000)  # characters of a chunk


def fold(text):  # lower case, without accents
    if text.isascii():
        return text.lower()
    bare = re.sub("[\u0300-\u036f]+", "", unicodedata.normalize("NFKD", text.casefold()))
    return unicodedata.normalize("NFC", bare)


def split(text):  # at the end of a paragraph, a sentence or a line; else parts overlap
    start = 0
    while start < len(text):
        end, overlap = min(start + size, len(text)), 0
        if end < len(text):
            half = start + size // 2
            marks = ("\n\n", ". ", ".\n", "\u3002", "\n")
            ends = (text.rfind(mark, half, end) + len(mark) for mark in marks)
            end, overlap = next(((each, 0) for each in ends if each > half), (end, 500))
        yield start, end
        start = end - overlap


chunks, filled = [[]], 0  # a chunk is a list of parts, because short sources share one
for number, text in enumerate(sources):
    for start, end in split(text):
        if filled and filled + end - start > size:
            chunks.append([])
            filled = 0
        chunks[-1].append((number, start, end))
        filled += end - start


def text_of(chunk):
    return "\n\n".join(sources[number][start:end] for number, start, end in chunk)


counts = dict.fromkeys(words, 0)
together = []  # for each chunk, the sets of words that are within 2,000 characters
for chunk in chunks:
    text = fold(text_of(chunk))
    for stem in words:
        counts[stem] += text.count(stem)
    windows = (text[at : at + 2000] for at in range(0, max(len(text), 1), 1000))
    together.append({frozenset(stem for stem in words if stem in window) for window in windows})

# Rare words weigh more.
weights = {stem: math.log(1 + max(total / 100, 50) / (1 + count)) for stem, count in counts.items()}


def sum_weights(held):
    return sum(weights[stem] for stem in words if stem in held)


kind = type(context).__name__
print(f"{kind} of {len(sources)} source(s), {total} characters, {len(chunks)} chunk(s)")
print("begins:", repr(sources[0][:200]) if sources else "nothing")
print("counts:", {words[stem]: count for stem, count in counts.items()})
print("Step 1 of 3 is done.")
