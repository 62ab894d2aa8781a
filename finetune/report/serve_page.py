"""The page on which pictures are dropped, to be answered by a model that is served."""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from finetune.report.templates import load_template

_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def serve_page(about: Mapping[str, Any]) -> tuple[str, str]:
    """Return the page and its content security policy; it needs nothing but the server itself.

    Args:
        about: what the server says of its model.
    """
    text = load_template("serve.html").render(about=about).encode("utf-8", "replace").decode()
    digests = [
        base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in _SCRIPT.findall(text)
    ]
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy
