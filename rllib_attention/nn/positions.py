"""Position schemes by name.

Every scheme depends on the distance between query and key only, so shifting an episode's clock
changes nothing.
"""

from rllib_attention.nn.checks import check_choice
from rllib_attention.nn.no_position import NoPosition
from rllib_attention.nn.relative import RelativeBias, RelativePosition
from rllib_attention.nn.rotary import RecencyPosition, RotaryPosition

POSITIONS = ("relative_bias", "relative", "recency", "rotary", "none")


def make_position(
    name: str, *, dim: int, num_heads: int, head_size: int, window: int
) -> NoPosition:
    """Builds a position scheme by name.

    Args:
        name: One of `POSITIONS`.
        dim: Embed dim D.
        num_heads: Heads H.
        head_size: Size E of one head.
        window: Time steps W that a query attends to.

    Raises:
        ValueError: If `name` is not one of `POSITIONS`.
    """
    check_choice("position", name, POSITIONS)
    if name == "relative_bias":
        return RelativeBias(num_heads, head_size, window)
    if name == "recency":
        return RecencyPosition(num_heads, head_size)
    if name == "rotary":
        return RotaryPosition(head_size)
    if name == "relative":
        return RelativePosition(dim, num_heads, head_size, window)
    return NoPosition()
