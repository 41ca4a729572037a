"""The state of the search page in its URL: the query, the filters and the form fields."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final
from urllib.parse import quote

from starlette.requests import Request

from mmindex.core.errors import UsageError
from mmindex.keywords.names import has_keywords
from mmindex.pages.controls import Action, Field
from mmindex.search.calibration import CALIBRATION
from mmindex.search.condition import in_brackets
from mmindex.serve.address import address, parameters, quoted
from mmindex.serve.asks import read_number
from mmindex.serve.facets import Facets
from mmindex.serve.facts import LABELS
from mmindex.store.manifest import Manifest

# Columns that are parameters under their own name; others are `is.COLUMN`.
_CHOICES: Final = ("folder", "split", "camera")
_FILTERS: Final = (*_CHOICES, "from", "to_date", "width")
_COLUMN: Final = "is."
_OTHERS: Final = ("by", "good", "where", "sort")
_QUERY: Final = ("image", "unlike", "minus", "picture")


@dataclass(frozen=True, slots=True)
class View:
    """The state of the search page in its URL."""

    params: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, request: Request) -> View:
        """Return the state in the URL of a request, without empty parameters."""
        return cls(tuple((k, v) for k, v in parameters(request).multi_items() if v))

    def get(self, name: str) -> str:
        """Return the value of a parameter; empty if it has none."""
        return dict(self.params).get(name, "")

    def address(self, path: str = "/", **changes: str) -> str:
        """Return the URL of the page with some parameters changed, without empty ones."""
        kept = [(name, value) for name, value in self.params if name not in changes]
        return address(path, [*kept, *((name, value) for name, value in changes.items() if value)])

    @property
    def columns(self) -> dict[str, str]:
        """Return the columns that filters set to a value."""
        named = {name: name for name in _CHOICES}
        named |= {name: name.removeprefix(_COLUMN) for name, _ in self.params
                  if name.startswith(_COLUMN)}  # fmt: skip
        return {column: value for name, column in named.items() if (value := self.get(name))}

    @property
    def filters(self) -> tuple[str, ...]:
        """Return the names of the filter parameters, including those of other columns."""
        return (*_FILTERS, *(name for name, _ in self.params if name.startswith(_COLUMN)))

    @property
    def cleared(self) -> str:
        """Return the URL of the page with all fields empty, except the query."""
        return self.address(**dict.fromkeys((*self.filters, *_OTHERS, "offset"), ""))

    @property
    def query(self) -> list[tuple[str, str]]:
        """Return the parameters of the query except its text, for hidden form fields."""
        return [pair for pair in self.params if pair[0] in _QUERY]


def condition(view: View, known: Facets) -> str | None:
    """Return the SQL condition of the form fields and ``where``.

    Raises:
        UsageError: the value of a field is invalid.
    """
    parts = [in_brackets(view.get("where"))] if view.get("where") else []
    parts += [known.condition(name, value) for name, value in view.columns.items()]
    for name, sign in (("from", ">="), ("to_date", "<=")):
        if value := view.get(name):
            try:
                day = date.fromisoformat(value)
            except ValueError:
                raise UsageError(f"{value[:20]!r} is not a date", "such as 2023-06-01") from None
            names = [name for name in ("taken", "modified") if known.has(name, "timestamp")]
            if not names:
                raise UsageError("this store contains no dates", "remove `from` and `to_date`")
            column = f"coalesce({', '.join(names)})"
            last = " 23:59:59.999999" if sign == "<=" else ""
            parts.append(f"{column} {sign} '{day.isoformat()}{last}'")
    if value := view.get("width"):
        parts.append(f"width >= {read_number('width', value, 0, 10**9)}")
    return " and ".join(parts) or None


def fields(view: View, known: Facets, manifest: Manifest) -> list[Field]:
    """Return the fields of a version: how to search, and filters whose columns exist."""
    found = []
    if has_keywords(manifest):
        ways = [("", "meaning"), ("both", "both"), ("words", "words")]
        found.append(Field("by", "Search by", view.get("by"), "select", ways))
    if manifest.find(CALIBRATION) is not None:
        kept = [("", "all"), ("1", "without weak ones")]
        found.append(Field("good", "Results", view.get("good"), "select", kept))
    for column, values in known.values.items():
        name = column if column in _CHOICES else f"{_COLUMN}{column}"
        value = view.get(name)
        # A value in the URL that is not among the frequent ones stays selected.
        choices = list(dict.fromkeys(["", *values, value]))
        shown = [(one, one or "any") for one in choices]
        found.append(Field(name, LABELS.get(column, column), value, "select", shown))
    if known.has("taken", "timestamp") or known.has("modified", "timestamp"):
        found.append(Field("from", "From", view.get("from"), "date"))
        found.append(Field("to_date", "To", view.get("to_date"), "date"))
    found.append(Field("width", "Minimum width", view.get("width"), "number", hint="in pixels"))
    sorts = [("", "best first")]
    if known.has("taken", "timestamp"):
        sorts += [("taken:desc", "newest first"), ("taken", "oldest first")]
    sorts += [("size_bytes:desc", "largest file first"), ("width:desc", "widest first")]
    found.append(Field("sort", "Order", view.get("sort"), "select", sorts))
    found.append(
        Field(
            "where", "Condition (SQL)", view.get("where"), hint="width > height and format = 'PNG'"
        )
    )
    return found


def image_actions(view: View, image_id: str) -> list[Action]:
    """Return the actions for an image and for the query that found it."""
    actions = [Action("More like this", view.address(q="", image=image_id, offset="", picture=""))]
    if view.get("q") or view.get("image"):
        actions.append(Action("Not like this", view.address(unlike=image_id, offset="")))
    if view.get("q"):
        drawn = view.get("explain")
        label = "Show the image only" if drawn else "Show where it matches"
        way = view.address(f"/picture/{quoted(image_id)}", explain="" if drawn else "1")
        actions.append(Action(label, way))
    actions.append(Action("Open the file", f"/api/v1/images/{quoted(image_id)}/file"))
    if view.get("q") or view.get("image"):
        actions.append(Action("Back to the results", view.address(explain="")))
    return actions


def explanation_address(base: str, view: View) -> str:
    """Return the URL of the explanation overlay; empty if it is not requested."""
    if not (view.get("explain") and view.get("q")):
        return ""
    return address(f"{base}/explanation", [("q", view.get("q"))])


def query_images(view: View) -> list[tuple[str, str, str]]:
    """Return the images of a query: their role, thumbnail, and the link that removes them."""
    parts = []
    for name, label in (("image", "like this"), ("unlike", "not like this")):
        for key, value in view.params:
            if key == name:
                rest = tuple(pair for pair in view.params if pair != (name, value))
                thumb = f"/api/v1/images/{quoted(value)}/thumbnail"
                parts.append((label, thumb, View(rest).address(offset="")))
    if key := view.get("picture"):
        parts.append(
            ("like your image", f"/api/v1/pictures/{quote(key)}", view.address(picture=""))
        )
    return parts
