"""The length of the common start of two texts."""

from collections.abc import Callable


def common_length(texts: Callable[[int, int], tuple[str, str]], most: int) -> int:
    """The length of the common start of two texts, which are read in growing steps."""
    done, step = 0, 256
    while done < most:
        one, other = texts(done, min(step, most - done))
        if one != other:
            return done + _common(one, other)
        done += len(one)
        step = min(4 * step, 1 << 16)
    return done


def _common(one: str, other: str) -> int:
    """The length of the common start of two texts that differ."""
    low, high = 0, len(one)
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
