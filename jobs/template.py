"""python -m jobs template new|check|import|export: forms of one's own.

    python -m jobs template new blank.png --out forms/ --name register       from a blank form: an image or a PDF page
    python -m jobs template new scans/ --out forms/ --name register          from 30 to 200 filled-in scans
    python -m jobs template import forms/register.json drawn.json            fields that were named and moved elsewhere
    python -m jobs template export forms/register.json --to labelme --out register.labelme.json
    python -m jobs template check forms/ --scans scans/                      ready, or what to do

`new` writes NAME.json, NAME.png and NAME.html. The page shows the fields that were proposed; there they are named,
moved, drawn and saved as JSON, which `import` takes, as it takes PAGE XML (eScriptorium, Transkribus), Label Studio,
LabelMe and COCO (CVAT). `check` registers every scan on every form, chooses `marks` for editions that have none, and
writes a page with a picture of each scan that fails. See docs/forms.md.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.cli.console import Progress, log
from jobs.cli.settings import setting
from shards.files import in_shell

MAX_SCANS = 120  # that a blank form is made of


@dataclass(frozen=True)
class New:
    source: Path = setting(help="an image or PDF of the blank form, or a folder of filled-in scans", positional=True)
    out: Path = setting(help="folder of templates, where NAME.json and NAME.png are written", metavar="FOLDER")
    name: str | None = setting(None, "name of the form (default: that of the source)")
    page: int = setting(1, "page of a PDF or TIFF; the first one is 1", least=1)
    dpi: float | None = setting(None, "resolution of the source in dots per inch (default: as its files say)")
    force: bool = setting(False, "replace the template of this name")


@dataclass(frozen=True)
class Check:
    forms: Path = setting(help="a folder of templates", positional=True)
    scans: Path = setting(help="folder of scans to check with", metavar="FOLDER")
    out: Path = setting(Path("check.html"), "page to write")
    marks: Literal["missing", "all", "keep"] = setting(
        "missing",
        "where to choose marks: in editions that have none (missing), in all that are alike (all), or nowhere (keep)",
    )
    limit: int = setting(500, "largest number of scans to look at", least=1)


@dataclass(frozen=True)
class Import:
    template: Path = setting(help="NAME.json", positional=True)
    drawn: Path = setting(help="PAGE XML, Label Studio, LabelMe or COCO JSON, or the page's JSON", positional=True)


@dataclass(frozen=True)
class Export:
    template: Path = setting(help="NAME.json", positional=True)
    to: Literal["page", "labelstudio", "labelme", "coco", "html"] = setting(help="format to write")
    out: Path = setting(help="file to write", metavar="FILE")


ACTIONS = {
    "new": (New, "a template from a blank form or from filled-in scans"),
    "check": (Check, "are the templates ready for these scans?"),
    "import": (Import, "fields that were drawn elsewhere, into a template"),
    "export": (Export, "a template's fields for another program"),
}


def main(args: New | Check | Import | Export) -> int:
    return {New: new, Check: check, Import: take, Export: give}[type(args)](args)


# ---------------------------------------------------------------------------------------------------- new


def new(args: New) -> int:
    from htr.forms.edition import Form
    from htr.forms.printed_boxes import strengthened
    from htr.forms.structure import propose_fields
    from htr.forms.template import Template, write_template
    from jobs.html.form_editor import write_editor

    name = args.name or args.source.resolve().stem
    if not name or name.startswith(".") or "/" in name:
        raise ValueError(f"--name {name!r}: it names files, without a path")
    path = args.out / f"{name}.json"
    if path.exists() and not args.force:
        raise ValueError(f"{path} exists already: give another --name, or --force to replace it")
    if path.with_suffix(".png").resolve() == args.source.resolve():
        raise ValueError(f"{args.source}: it would be replaced by the template's own picture: name another --out")
    blank = blank_of(args)
    dpi, picture = blank.dpi, strengthened(blank.picture, blank.dpi)
    fields = blank.fields or tuple(propose_fields(picture, dpi))
    if not fields:
        fields = (somewhere(picture),)
        log("template: no ruling, box, square or label with a colon that could be a field is found: one field was put "
            "into the middle to begin with. Is it the blank form, and is --dpi right?")  # fmt: skip
    template = Template(name, picture, dpi, tuple(fields), ())
    try:
        Form.prepare(template)
    except ValueError as error:
        if len(fields) == 1 and fields[0].name == "field":
            raise ValueError(f"{args.source}: {error}. Is it the blank form, and is --dpi right?") from None
        log(f"template: {error}. No scan can be registered on it so: fields that cover print are to leave it free")
    write_template(template, args.out)
    page = path.with_suffix(".html")
    write_editor(template, page)
    ticks = sum(field.kind == "tick" for field in fields)
    log(f"template: {path}: {len(fields) - ticks} text fields and {ticks} tick boxes proposed, {picture.shape[1]} x "
        f"{picture.shape[0]} at {dpi:g} dpi")  # fmt: skip
    log(
        f"template: open {page} to name and move them; then: python -m jobs template import {in_shell(path)} "
        "DOWNLOADED.json"
    )
    return 0


def somewhere(picture):
    """A field to be moved and copied, where none is proposed."""
    from htr.forms.template import Field

    height, width = picture.shape
    box = width // 4, height // 2 - height // 40, width // 2, height // 20
    return Field("field", "text", box, 1, float(box[3]))


def blank_of(args: New):
    """-> blank_source.BlankPage."""
    from htr.forms import blank_form
    from htr.forms.blank_source import BlankPage, read_blank

    if not args.source.exists():
        raise ValueError(f"{args.source}: no such image, PDF or folder")
    if not args.source.is_dir():
        page = read_blank(args.source, args.page, args.dpi)
        if page.fields:
            log(f"template: the PDF has {len(page.fields)} fields of its own: they are taken, none is guessed")
        if page.pages > 1:
            log(f"template: page {args.page} of {page.pages}; each page is a form of its own: --page and --name")
        return page
    images, sizes, names = read_scans(args.source, MAX_SCANS)
    with Progress("template", 2 * len(images), "scans") as progress:
        made = blank_form.blank_of_scans(images, [args.dpi or size for size in sizes], progress.advance)
    if made.left_out:
        log(f"template: {len(made.left_out)} of {len(images)} scans show another form, or can't be laid on the others, "
            f"and were left out: {', '.join(names[i] for i in made.left_out[:5])}"
            + (" …" if len(made.left_out) > 5 else ""))  # fmt: skip
    log(
        f"template: made of {len(made.used)} scans"
        + ("" if len(made.used) >= 30 else "; 30 or more leave less writing")
    )
    return BlankPage(made.picture, made.dpi)


def names_of(folder: Path, most: int) -> list[str]:
    """Of the images of a folder; spread over it if there are more than `most`."""
    import numpy as np

    from htr.io.account import Account
    from htr.io.folders import list_folder

    names = list_folder(folder, Account()).images
    if not names:
        raise ValueError(f"{folder}: no image in this folder")
    if len(names) > most:
        log(f"template: {most} of the {len(names)} scans are looked at")
        names = [names[round(place)] for place in np.linspace(0, len(names) - 1, most)]
    return names


def read_scans(folder: Path, most: int):
    """-> gray images, dpi or None of each, names."""
    from htr.io.image_files import RejectedInput, decode, resolution

    names = names_of(folder, most)
    images, sizes, read = [], [], []
    for name in names:
        encoded = (folder / name).read_bytes()
        try:
            images.append(decode(encoded))
            sizes.append(resolution(encoded))
            read.append(name)
        except RejectedInput:
            continue
    say_unread(len(names) - len(read), len(names))
    return images, sizes, read


def say_unread(bad: int, files: int) -> None:
    if bad:
        log(f"template: {bad} of {files} files can't be read as images and were left out")


# ---------------------------------------------------------------------------------------------------- check


def check(args: Check) -> int:
    from dataclasses import replace

    from htr.forms.check_files import check_files
    from htr.forms.form_check import choose_marks, verdict
    from htr.forms.registration import Forms
    from htr.forms.template import load_templates, write_template
    from jobs.html.form_check import write_page

    templates, same = list(load_templates(args.forms)), []
    if args.marks != "keep" and len(templates) > 1:
        chosen, same = choose_marks(templates)
        for number, template in enumerate(templates):
            if chosen.get(template.name) and (args.marks == "all" or not template.marks):
                templates[number] = replace(template, marks=chosen[template.name])
                write_template(templates[number], args.forms)
                log(f"template: {template.name}: {len(chosen[template.name])} marks chosen")
    names = names_of(args.scans, args.limit)
    with Progress("template", len(names), "scans") as progress:
        found = check_files(templates, [args.scans / name for name in names], progress.advance)
    say_unread(sum(one is None for one in found), len(names))
    read = {name: one for name, one in zip(names, found, strict=True) if one is not None}
    results = [result for result, _ in read.values()]
    readiness = verdict(templates, results, same)
    write_page(args.out, Forms(templates), templates, read, readiness)
    os.chmod(args.out, 0o600)
    accepted = sum(bool(result.form) for result in results)
    log(f"template: {accepted} of {len(results)} scans registered; {args.out} (confidential: it shows scans)")
    for line in readiness.lines:
        print(line)
    return 0 if readiness.ready else 1


# ---------------------------------------------------------------------------------------------------- in and out


def take(args: Import) -> int:
    from htr.forms.annotation_reader import read_fields
    from htr.forms.template import load_template, write_template
    from jobs.html.form_editor import write_editor

    template = read_fields(load_template(args.template), args.drawn)
    write_template(template, args.template.parent)
    write_editor(template, args.template.with_suffix(".html"))
    log(f"template: {args.template}: {len(template.fields)} fields")
    return 0


def give(args: Export) -> int:
    from htr.forms.annotation_writer import write_fields
    from htr.forms.template import load_template
    from jobs.html.form_editor import write_editor

    template = load_template(args.template)
    if args.to == "html":
        write_editor(template, args.out)
    else:
        write_fields(template, args.out, args.to)
    log(f"template: {args.out}")
    return 0
