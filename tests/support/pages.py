"""Reading a written page."""

import json
import re


def page_json(page):
    """The data that stands in a page."""
    (found,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL
    )
    return json.loads(found, parse_constant=lambda text: 1 / 0)


def page_text(page):
    """What a page says without its scripts and markup."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", bare))
