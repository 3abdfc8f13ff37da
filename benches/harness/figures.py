"""Figures of results."""

import contextlib
import statistics


def median(results):
    """The median of each number in equal structures."""
    first = results[0]
    if isinstance(first, dict):
        return {key: median([result[key] for result in results]) for key in first}
    if isinstance(first, (int, float)):
        return statistics.median(results)
    return first


def value(result, key):
    """Returns a number of a result by its path, such as `latency_ms.p99`."""
    with contextlib.suppress(KeyError, TypeError):
        for part in key.split("."):
            result = result[part]
        return result
    return None


def formatted(result, column):
    number = value(result, column["key"])
    return "" if number is None else f"{number / column['divisor']:,.{column['decimals']}f}"


def spread(rounds, key):
    """The smallest and the greatest value of the first column, as a share of the median."""
    numbers = [number for number in (value(result, key) for result in rounds) if number is not None]
    if len(numbers) < 2 or not statistics.median(numbers):
        return ""
    middle = statistics.median(numbers)
    return f"{min(numbers) / middle:.2f}-{max(numbers) / middle:.2f}"


def compared(rounds, first, key):
    """The median of the ratios to the first server, of the same round each."""
    pairs = [(value(result, key), value(other, key)) for result, other in zip(rounds, first)]
    ratios = [number / other for number, other in pairs if number is not None and other]
    return f"{statistics.median(ratios):.2f}" if ratios else ""
