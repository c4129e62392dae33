"""A figure is drawn once, as a list of marks in pixels, and written three ways: in the page, as SVG and as PNG.

In the page a mark has a class for its colour, so that it follows the theme. The files have the light theme's colours.
The PNG is drawn by matplotlib, mark by mark, and looks as the SVG does.
"""

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from trl_math.optional import is_installed
from trl_math.reporting.page.markup import Markup, tag, text


# Role -> colour in the light and in the dark theme. The first eight are for runs, which also differ in the shapes of
# their points; every two of the first four differ for each kind of colour blindness.
COLOURS = {
    "run0": ("#0063a8", "#6fb7f0"),
    "run1": ("#c64a00", "#ff9a5c"),
    "run2": ("#007a5c", "#4fc9a4"),
    "run3": ("#a3428a", "#e393cd"),
    "run4": ("#8a6500", "#dcb84a"),
    "run5": ("#4b4fc4", "#a6a8ff"),
    "run6": ("#5c6670", "#a7b1bb"),
    "run7": ("#a01d2c", "#ff8c93"),
    "right": ("#2b7cb8", "#4f9bd4"),
    "wrong": ("#d9752f", "#c4743c"),
    "ink": ("#1d2126", "#e7e9ec"),
    "muted": ("#5b636d", "#a3abb5"),
    "grid": ("#e5e8eb", "#2b3138"),
    "axis": ("#9aa2ab", "#626b75"),
    "frontier": ("#f3dfa2", "#574a1f"),
    "paper": ("#ffffff", "#15181c"),
}
NUM_COLOURS = 8
PAPER = COLOURS["paper"][0]
WIDTH = 360  # of a panel: a phone shows it at its own size
SHAPES = ("circle", "square", "diamond", "triangle")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
BAND = 0.16  # opacity
FONT_SIZE = 12
LETTER = 0.56 * FONT_SIZE  # how wide one is, about
PNG_SCALE = 2
TEXT_SCALE = 0.9  # of text in PNG: DejaVu is wider than what browsers show
OUTLINE = 1.2  # of dots, in the colour of the paper
FRAME = 16  # around a figure that stands alone
TITLE_HEIGHT, LEGEND_HEIGHT, KEY_WIDTH = 30, 20, 15

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """Something drawn. `points` are corners of lines and areas, the centre of dots, the anchor of text."""

    kind: Literal["line", "area", "dot", "text"]
    points: Points
    colour: str
    width: float = 0.0  # of lines; radius of dots; size of text
    dash: str = ""
    opacity: float = 1.0
    shape: str = "circle"
    words: str = ""
    anchor: Literal["start", "middle", "end"] = "start"
    is_bold: bool = False
    note: str = ""  # shown when pointed at


class Key(NamedTuple):
    """A name in a legend, with what marks it."""

    name: str
    colour: str
    shape: str = "circle"


@dataclass
class Figure:
    """Marks on a sheet of paper, in pixels from the top left corner."""

    name: str  # of its files
    title: str
    caption: str  # what it shows, for those who cannot see it
    width: int
    height: int
    keys: Sequence[Key] = ()  # the legend, which the page shows once for many figures
    marks: list[Mark] = field(default_factory=list)

    def line(self, points: Points, colour: str, width: float = 1.0, dash: str = "", opacity: float = 1.0) -> None:
        self.marks.append(Mark("line", points, colour, width, dash, opacity))

    def area(self, points: Points, colour: str, opacity: float = 1.0, note: str = "") -> None:
        self.marks.append(Mark("area", points, colour, opacity=opacity, note=note))

    def bar(self, left: float, top: float, width: float, height: float, colour: str, note: str = "") -> None:
        right, bottom = left + width, top + height
        self.area([(left, top), (right, top), (right, bottom), (left, bottom)], colour, note=note)

    def dot(
        self, x: float, y: float, colour: str, radius: float = 4.0, shape: str = "circle", *, note: str = ""
    ) -> None:
        self.marks.append(Mark("dot", [(x, y)], colour, radius, shape=shape, note=note))

    def text(self, x: float, y: float, words: str, colour: str = "muted", size: float = FONT_SIZE, **how: Any) -> None:
        self.marks.append(Mark("text", [(x, y)], colour, size, words=words, **how))

    def inline(self) -> Markup:
        """Return the figure for the page, coloured by its classes."""
        marks = [mark_svg(mark, mark.colour) for mark in self.marks]
        size = {"viewBox": f"0 0 {self.width} {self.height}", "role": "img", "aria_label": self.caption}
        return tag("svg", *marks, **size, cls="chart")

    def save(self, folder: Path) -> list[str]:
        """Write the SVG, and the PNG where matplotlib is installed. Return the names of the files."""
        framed = self.framed()
        (folder / f"{self.name}.svg").write_text(framed.as_svg(), encoding="utf-8")
        if not is_installed("matplotlib"):
            return [f"{self.name}.svg"]
        _save_png(framed, folder / f"{self.name}.png")
        return [f"{self.name}.svg", f"{self.name}.png"]

    def framed(self) -> "Figure":
        """Return the figure as it stands alone: with margins, its title above and its legend below."""
        rows = _legend_rows(self.keys, self.width)
        height = self.height + TITLE_HEIGHT + LEGEND_HEIGHT * len(rows) + 2 * FRAME
        framed = replace(self, width=self.width + 2 * FRAME, height=height, marks=[])
        title = clipped(self.title, int(self.width / (1.12 * LETTER)))
        framed.text(FRAME, FRAME + FONT_SIZE, title, "ink", FONT_SIZE + 1, is_bold=True)
        top = FRAME + TITLE_HEIGHT
        framed.marks += [replace(mark, points=[(x + FRAME, y + top) for x, y in mark.points]) for mark in self.marks]
        for place, row in enumerate(rows):
            y = top + self.height + LEGEND_HEIGHT * (place + 0.9)
            for x, key in row:
                framed.dot(FRAME + x + 5, y - 4, key.colour, 4.5, key.shape)
                most = int((self.width - KEY_WIDTH) / LETTER)
                framed.text(FRAME + x + KEY_WIDTH, y, clipped(key.name, most), "ink")
        return framed

    def as_svg(self) -> str:
        """Return the figure as a file of its own, in the light theme's colours."""
        marks = [mark_svg(mark, None, COLOURS[mark.colour][0]) for mark in self.marks]
        paper = tag("rect", width=self.width, height=self.height, fill=PAPER)
        size = {"width": self.width, "height": self.height, "viewBox": f"0 0 {self.width} {self.height}"}
        title = tag("title", f"{self.title}: {self.caption}")
        return tag("svg", title, paper, *marks, xmlns="http://www.w3.org/2000/svg", **size, font_family=FONT) + "\n"


def _legend_rows(keys: Sequence[Key], width: float) -> list[list[tuple[float, Key]]]:
    """Lay the legend out in rows."""
    rows: list[list[tuple[float, Key]]] = []
    x = width + 1.0
    for key in keys:
        wanted = KEY_WIDTH + LETTER * len(key.name) + 16
        if x + wanted > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, key))
        x += wanted
    return rows


def clipped(words: str, most: int) -> str:
    """Return words without what is beyond `most` letters."""
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def short(number: float) -> str:
    """Return a coordinate without needless digits."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _path(points: Points) -> str:
    return "M" + "L".join(f"{short(x)} {short(y)}" for x, y in points)


def mark_svg(mark: Mark, cls: str | None, colour: str | None = None) -> Markup:
    """Return a mark as SVG, with a class for its colour or with the colour itself."""
    note = tag("title", mark.note) if mark.note else None
    opacity = short(mark.opacity) if mark.opacity != 1 else None
    if mark.kind == "line":
        stroke = {"stroke_width": short(mark.width), "stroke_dasharray": mark.dash or None, "stroke": colour}
        ends = {"fill": "none", "stroke_linejoin": "round", "stroke_linecap": "butt" if mark.dash else "round"}
        return tag("path", d=_path(mark.points), cls=f"l {cls}" if cls else None, opacity=opacity, **stroke, **ends)
    if mark.kind == "area":
        return tag("path", note, d=_path(mark.points) + "Z", cls=cls, fill=colour, opacity=opacity)
    if mark.kind == "dot":
        paper = {"stroke": None if cls else PAPER, "stroke_width": OUTLINE}
        outline = _path(outline_of(mark)) + "Z" if mark.shape != "circle" else None
        if outline:
            return tag("path", note, d=outline, cls=f"d {cls}" if cls else None, fill=colour, **paper)
        x, y = mark.points[0]
        place = {"cx": short(x), "cy": short(y), "r": short(mark.width)}
        return tag("circle", note, **place, cls=f"d {cls}" if cls else None, fill=colour, **paper)
    left, base = (short(value) for value in mark.points[0])
    style = {"font_size": short(mark.width), "font_weight": 600 if mark.is_bold else None}
    anchor = mark.anchor if mark.anchor != "start" else None
    return tag("text", text(mark.words), x=left, y=base, cls=cls, fill=colour, text_anchor=anchor, **style)


def outline_of(mark: Mark) -> Points:
    """Return the corners of a dot that is no circle, of the circle's area."""
    (x, y), r = mark.points[0], mark.width
    if mark.shape == "square":
        s = 0.89 * r
        return [(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]
    if mark.shape == "diamond":
        s = 1.25 * r
        return [(x, y - s), (x + s, y), (x, y + s), (x - s, y)]
    s = 1.3 * r
    return [(x, y - s), (x + s, y + 0.8 * s), (x - s, y + 0.8 * s)]


def _save_png(figure: Figure, path: Path) -> None:
    """Draw every mark as a path or a text, straight on matplotlib's canvas."""
    matplotlib = importlib.import_module("matplotlib")
    agg, paths, transforms, fonts, image = (
        importlib.import_module(f"matplotlib.{name}")
        for name in ("backends.backend_agg", "path", "transforms", "font_manager", "image")
    )
    canvas = agg.RendererAgg(figure.width * PNG_SCALE, figure.height * PNG_SCALE, 72 * PNG_SCALE)
    to_pixels = transforms.Affine2D().translate(0, -figure.height).scale(PNG_SCALE, -PNG_SCALE)
    circle = paths.Path.unit_circle()
    page = [(0, 0), (figure.width, 0), (figure.width, figure.height), (0, figure.height)]
    with matplotlib.rc_context({"text.hinting": "none"}), warnings.catch_warnings():
        # A name in letters that the font does not have: it is right in the page and in the SVG.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for mark in [Mark("area", page, "paper"), *figure.marks]:
            pen, colour, (x, y) = canvas.new_gc(), _rgba(mark), mark.points[0]
            if mark.kind == "line":
                pen.set_foreground(colour, isRGBA=True)
                pen.set_linewidth(mark.width)  # in points, which are our pixels
                pen.set_capstyle("butt" if mark.dash else "round")
                pen.set_joinstyle("round")
                pen.set_dashes(0, [float(part) for part in mark.dash.split()] or None)
                canvas.draw_path(pen, paths.Path(mark.points), to_pixels)
            elif mark.kind == "text":
                style = {"family": "DejaVu Sans", "weight": "bold" if mark.is_bold else "normal"}
                font = fonts.FontProperties(size=TEXT_SCALE * mark.width, **style)
                width = canvas.get_text_width_height_descent(mark.words, font, False)[0]
                start = x * PNG_SCALE - {"start": 0.0, "middle": 0.5, "end": 1.0}[mark.anchor] * width
                pen.set_foreground(colour, isRGBA=True)
                canvas.draw_text(pen, start, y * PNG_SCALE, mark.words, font, 0)
            else:
                pen.set_foreground(PAPER)
                pen.set_linewidth(OUTLINE if mark.kind == "dot" else 0)
                if mark.kind == "dot" and mark.shape == "circle":
                    place = transforms.Affine2D().scale(mark.width).translate(x, y) + to_pixels
                    canvas.draw_path(pen, circle, place, colour)
                else:
                    corners = outline_of(mark) if mark.kind == "dot" else mark.points
                    canvas.draw_path(pen, paths.Path([*corners, corners[0]], closed=True), to_pixels, colour)
    image.imsave(path, canvas.buffer_rgba(), metadata={"Software": None})


def _rgba(mark: Mark) -> tuple[float, ...]:
    colour = COLOURS[mark.colour][0]
    return (*(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)), mark.opacity)
