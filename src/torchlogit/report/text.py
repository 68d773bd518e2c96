"""Words and numbers for the page: what data hold is shown as it is, and can do nothing."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
from markupsafe import Markup

# Characters that nobody sees and that turn, hide or end a line: shown by their number.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_ISOLATE, _POP = "\u2068", "\u2069"


def shown(value: Any, most: int = 200) -> str:
    """A name, label or cell as text; unseen characters by their number, long texts shortened."""
    text = str(value.item() if isinstance(value, np.generic) else value)
    text = text if len(text) <= most else text[: most - 1] + "…"
    text = _UNSEEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)
    return text if text.strip() else f"“{text}”"


def isolated(value: Any, most: int = 200) -> str:
    """The same for places without markup (SVG, attributes): its direction cannot leak into what stands around it."""
    return f"{_ISOLATE}{shown(value, most)}{_POP}"


def trusted(markup: str) -> Markup:
    """Markup written in this package: the one door past escaping, and nothing that came with the data goes here."""
    return Markup(markup)  # noqa: S704


def script_json(value: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it ends the element, or a line."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return trusted(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _finite(value: Any) -> Any:
    """Plain numbers, and null where there is none."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits, a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1e5 or size < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}".replace("-", "−")


def fixed(value: float | None, decimals: int = 3) -> str:
    """A number to so many decimals."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{decimals}f}".replace("-", "−")


def percent(share: float | None, decimals: int = 1) -> str:
    """A share in per cent; never rounded to all or nothing where it is neither."""
    if share is None or math.isnan(share):
        return "–"
    text = f"{100 * share:.{decimals}f}"
    if 0 < share < 1 and float(text) in (0.0, 100.0):
        least = 10.0**-decimals
        return f"below {least:g} %" if share < 0.5 else f"above {100 - least:g} %"
    return f"{text} %"


def percents(interval: tuple[float, float]) -> str:
    """An interval in per cent, with as many decimals as its width deserves: ``84.8 to 85.8 %``."""
    low, high = interval
    width = 100 * (high - low)
    decimals = 1 if width == 0 else min(4, max(1, -math.floor(math.log10(width))))
    return f"{100 * low:.{decimals}f} to {100 * high:.{decimals}f} %"


def counted(count: float, noun: str, plural: str | None = None) -> str:
    """``1 row``, ``1,200 rows``."""
    return f"{count:,.0f} {noun if count == 1 else plural or noun + 's'}"


def plain(value: float) -> str:
    """A parameter as people write it."""
    return f"{value:g}".replace("e-0", "e-").replace("-", "−")


def digits(value: float) -> Markup:
    """A count in groups of three that is copied, searched and read out as one number."""
    whole = f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
    head, dot, tail = whole.partition(".")
    first = len(head) % 3 or 3
    groups = [head[:first], *(head[j : j + 3] for j in range(first, len(head), 3))]
    return trusted(groups[0] + "".join(f'<span class="g">{group}</span>' for group in groups[1:]) + dot + tail)
