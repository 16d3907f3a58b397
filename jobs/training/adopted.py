"""Adopted models: a model's folder without a run becomes a run, so that every verb can work with it."""

from pathlib import Path

from jobs.cli.console import log


def run_of(run: Path | None, model: Path | None) -> Path:
    """The run that was named; or that of a model's folder, runs/NAME-WEIGHTS, made here where it is not there yet.

    Raises ValueError: none or both of them, or no model.
    """
    found = folder_of_run(run, model)
    if model is not None:
        adopt(files_of_model(model), found)
    return found


def folder_of_run(run: Path | None, model: Path | None) -> Path:
    """The same, but nothing is written: where the run of a model's folder is, or would be."""
    from htr.reader import weights_of

    if (run is None) == (model is None):
        raise ValueError("which reader? give --run RUN, or --model FOLDER (htr/pretrained is the project's own)")
    if model is None:
        return run
    inner = files_of_model(model)
    name = inner.resolve().parent.name if inner.name == "model" else inner.resolve().name
    return Path("runs") / f"{name}-{weights_of(inner)[:8]}"


def files_of_model(model: Path) -> Path:
    """The folder that config.json and the weights lie in: this one or its model/. Raises ValueError: they don't."""
    inner = model_in(model)
    if not all((inner / name).exists() for name in ("config.json", "weights.safetensors")):
        raise ValueError(f"--model {model}: no model here (config.json and weights.safetensors are needed)")
    return inner


def model_in(folder: Path) -> Path:
    """The folder of the model, given that one or the folder of its run."""
    return folder / "model" if (folder / "model" / "config.json").exists() else folder


def adopt(inner: Path, run: Path) -> None:
    """Any number of tasks may: they write the same."""
    from jobs.training.config import has_run, write_adopted
    from jobs.training.run_lock import read_json
    from shards import files

    sources = [inner, *([inner.parent / "decoding"] if (inner.parent / "decoding").is_dir() else [])]
    for source in sources:
        folder = run / ("model" if source == inner else "decoding")
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(source.iterdir()):
            if file.is_file() and not (folder / file.name).exists():
                files.replace(folder / file.name, file.read_bytes())
    if not has_run(run):
        config = read_json(inner / "config.json")
        facts = {name: config.get(name) for name in ("alphabet", "writes")} | {"adopted": str(inner.resolve())}
        write_adopted(run, {"architecture": config["model"], "size": config["size"]}, facts)
        log(
            f"{inner.parent if inner.name == 'model' else inner} has the run folder {run} from now on; results go there"
        )
