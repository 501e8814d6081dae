"""Paint: lines → the codes that a terminal obeys, in the colours that it has."""

from rich.console import Console
from rich.text import Text

__all__ = ["Painter"]


class Painter:
    """Writes frames over one another on stdout, which shows its other screen."""

    def __init__(self) -> None:
        self._console = Console(force_terminal=True, highlight=False)
        self._console.set_alt_screen()

    def draw(self, lines: list[Text], size: tuple[int, int], *, is_dim: bool) -> None:
        """Write a frame of columns and lines as they are now, whatever COLUMNS and LINES say."""
        self._console.size = size
        frame = Text("\n", "dim" if is_dim else "", no_wrap=True, overflow="crop").join(lines)
        self._console.update_screen(frame)
