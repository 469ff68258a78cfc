"""Which axis of an array is which, judged by their lengths, and how to turn the array into [N, S, S]: for messages alone.

N fields, S nodes per side, T snapshots, 1 a channel.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations
from math import isqrt

# The usual ones first: channels of networks, time before space, and the order of Fortran and MATLAB.
_LAYOUTS = {
    3: ("SSN", "SNS"),
    4: ("N1SS", "NSS1", "NTSS", "NSST", "SSTN", "SSNT", "TNSS", "1NSS", "SS1N", "SSN1"),
}


def advice(
    name: str, shape: Sequence[int], snapshots: bool, partner: tuple[int, int] | None = None, matlab: bool = False
) -> str | None:
    """What the axes of an array of this shape seem to be, and the expression that turns it; None if they fit nothing.

    Args:
        name: of the array, in the expression.
        snapshots: whether [N, S, S, T] is accepted; else the last snapshot has to be taken out.
        partner: N and S of the array that it belongs to, where they are known.
        matlab: whether the expression is one of MATLAB, else of NumPy.
    """
    if len(shape) == 2:
        return _flat(name, shape, matlab)
    for layout in _layouts(len(shape)):
        found = _sizes(layout, shape)
        if found and (partner is None or (found["N"], found["S"]) == partner):
            return f"it looks like [{', '.join(layout)}] ({_counts(found)}): {_turned(name, layout, snapshots, matlab)} turns it"
    return None


def _layouts(axes: int) -> Iterator[str]:
    yield from _LAYOUTS.get(axes, ())
    if axes == 4:
        yield from ("".join(order) for letters in ("NSS1", "NSST") for order in permutations(letters))


def _sizes(layout: str, shape: Sequence[int]) -> dict[str, int] | None:
    """Length by letter; None if equal letters would have different lengths."""
    found = dict(zip(layout, shape, strict=True))
    agree = all(found[letter] == length for letter, length in zip(layout, shape, strict=True))
    return found if agree and found.get("1", 1) == 1 < min(found["S"], found.get("T", 2)) else None


def _counts(found: dict[str, int]) -> str:
    words = {"N": "fields", "T": "snapshots"}
    numbers = [f"{found[letter]} {word}" for letter, word in words.items() if letter in found]
    return f"{', '.join(numbers)}, {found['S']} x {found['S']} nodes"


def _turned(name: str, layout: str, snapshots: bool, matlab: bool) -> str:
    """The expression that puts the axes into the order N, S, S and the other one behind them, or takes that out."""
    order = [layout.index("N"), *(place for place, letter in enumerate(layout) if letter == "S")]
    order += [place for place in range(len(layout)) if place not in order]
    moved = order != sorted(order)
    rest = set(layout) & {"1", "T"}
    if matlab:
        turned = f"permute({name}, [{' '.join(str(place + 1) for place in order)}])" if moved else name
        return f"{turned} with (:, :, :, end)" if "T" in rest and not snapshots else turned
    turned = f"numpy.transpose({name}, {tuple(order)})" if moved else name
    return f"{turned}[..., -1]" if "1" in rest or ("T" in rest and not snapshots) else turned


def _flat(name: str, shape: Sequence[int], matlab: bool) -> str | None:
    count, nodes = shape
    side = isqrt(nodes)
    if count == nodes:
        turned = f"reshape({name}, [1 {count} {nodes}])" if matlab else f"{name}[None]"
        return f"it looks like [S, S], one field of {count} x {nodes} nodes: {turned} turns it"
    if side > 1 and side * side == nodes:
        turned = f"reshape({name}, [{count} {side} {side}])" if matlab else f"{name}.reshape({count}, {side}, {side})"
        return f"it looks like [N, S S] ({count} fields, {side} x {side} nodes in one row): {turned} turns it"
    return None
