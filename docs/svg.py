"""A small canvas for the pictures of the docs; colours have names, in light and dark."""

from __future__ import annotations

from html import escape

LIGHT = {
    "paper": "#ffffff", "ink": "#1f2328", "faint": "#667085", "line": "#98a2b3",
    "plain": "#f2f4f7", "launcher": "#dbeafe", "leader": "#fde9c8", "daemon": "#d3f2dd",
    "edge-plain": "#d0d5dd", "edge-launcher": "#5b8def", "edge-leader": "#d9932f",
    "edge-daemon": "#3f9d63",
}  # fmt: skip
DARK = {
    "paper": "#131416", "ink": "#e6e8eb", "faint": "#9aa4b2", "line": "#5d6674",
    "plain": "#22252a", "launcher": "#1d3358", "leader": "#4a3414", "daemon": "#17402a",
    "edge-plain": "#434a54", "edge-launcher": "#6f9ff5", "edge-leader": "#e0a64e",
    "edge-daemon": "#56b87c",
}  # fmt: skip
SANS = "ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"


class Canvas:
    """Shapes, in the order in which they are drawn; colours are names of the palettes."""

    def __init__(self, width: int, title: str) -> None:
        self.width, self.height, self.title = width, 0, title
        self._shapes: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """A rounded box of a kind: plain, launcher, leader or daemon."""
        self._add(
            y + height,
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{{{kind}}}" stroke="{{edge-{kind}}}"/>',
        )

    def text(
        self, x: float, y: float, text: str, *, size: int = 13, mono: bool = False,
        bold: bool = False, faint: bool = False, anchor: str = "start",
    ) -> None:  # fmt: skip
        """A line of text, whose foot is at `y`."""
        style = f"font-size:{size}px; font-family:{MONO if mono else SANS}"
        if bold:
            style += "; font-weight:600"
        self._add(
            y + size / 3,
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" style="{style}" '
            f'fill="{{{"faint" if faint else "ink"}}}">{_literal(text)}</text>',
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, kind: str = "line",
        dashed: bool = False, arrow: bool = False,
    ) -> None:  # fmt: skip
        """A line, perhaps with a head at its end."""
        extra = ' stroke-dasharray="4 4"' if dashed else ""
        extra += ' marker-end="url(#head)"' if arrow else ""
        self._add(
            max(y1, y2),
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" '
            f'stroke="{{{kind}}}" stroke-width="1.5"{extra}/>',
        )

    def join(self, *others: Canvas) -> None:
        """Draw what others have, on top."""
        for other in others:
            self._shapes += other._shapes
            self.height = max(self.height, other.height)

    def _add(self, bottom: float, shape: str) -> None:
        self.height = max(self.height, round(bottom))
        self._shapes.append(shape)

    def render(self, palette: dict[str, str]) -> str:
        """The file's text, in the colours of a palette."""
        width, height = self.width, self.height + 16
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">\n<title>{escape(self.title)}</title>\n'
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
            'markerHeight="8" orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="{line}"/></marker>'
            "</defs>\n"
            f'<rect width="{width}" height="{height}" fill="{{paper}}"/>\n'
        )
        text = head + "\n".join(self._shapes) + "\n</svg>\n"
        for name, colour in palette.items():
            text = text.replace(f"{{{name}}}", colour)
        return text.replace("&#123;", "{").replace("&#125;", "}")


def _literal(text: str) -> str:
    return escape(text, quote=False).replace("{", "&#123;").replace("}", "&#125;")
