"""What MkDocs does to the pages of the site beyond its plugins."""

import re
from typing import Any


def on_page_content(html: str, **kwargs: Any) -> str:
    """Leaves out what marks Python in docstrings: the indented text behind it is code to Markdown.

    Args:
        html: A page, without its frame.
        **kwargs: What else MkDocs says of it.
    """
    return re.sub(r"<p>\.\. (code-block:: python|no-test)</p>\n?", "", html)
