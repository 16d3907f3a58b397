"""Adopted models: a model's folder without a run becomes a run, so that every verb can work with it."""

from pathlib import Path

from jobs.cli.console import log


def run_of(run: Path | None, model: Path | None) -> Path:
    """The run that was named; or that of a model's folder, runs/NAME-WEIGHTS, made here where it is not there yet.

    Raises ValueError: none or both of them, or no model.
    """
    if (run is None) == (model is None):
        raise ValueError("which reader? give --run RUN, or --model FOLDER (htr/pretrained is the project's own)")
    return run if model is None else adopt(model)


def adopt(model: Path) -> Path:
    """Any number of tasks may: they write the same."""
    from htr.reader import weights_of
    from jobs.training.config import has_run, write_adopted
    from jobs.training.run_lock import read_json
    from shards import files

    inner = model / "model" if (model / "model" / "config.json").exists() else model
    config = read_json(inner / "config.json")
    if config is None or not (inner / "weights.safetensors").exists():
        raise ValueError(f"--model {model}: no model here (config.json and weights.safetensors are needed)")
    name = inner.resolve().parent.name if inner.name == "model" else inner.resolve().name
    run = Path("runs") / f"{name}-{weights_of(inner)[:8]}"
    sources = [inner, *([inner.parent / "decoding"] if (inner.parent / "decoding").is_dir() else [])]
    for source in sources:
        folder = run / ("model" if source == inner else "decoding")
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(source.iterdir()):
            if file.is_file() and not (folder / file.name).exists():
                files.replace(folder / file.name, file.read_bytes())
    if not has_run(run):
        facts = {name: config.get(name) for name in ("alphabet", "writes")} | {"adopted": str(inner.resolve())}
        write_adopted(run, {"architecture": config["model"], "size": config["size"]}, facts)
        log(f"{model} has the run folder {run} from now on; results go there")
    return run
