"""The forms of a folder of templates, prepared once in a process: that takes as long as a certificate."""

from functools import cache
from pathlib import Path

from htr.forms.registration import Forms
from htr.forms.template import FORMS, load_templates


def prepare_forms(folder: Path | None) -> Forms:
    """`folder`: of NAME.json and NAME.png; None: the project's templates. Raises ValueError for a wrong template."""
    return load_once(folder or FORMS)


@cache
def load_once(folder: Path) -> Forms:
    return Forms(load_templates(folder))
