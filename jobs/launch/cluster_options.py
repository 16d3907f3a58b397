"""Options of the cluster that a verb submits with: its own, and those of the site."""

from dataclasses import dataclass
from typing import Literal

from jobs.cli.settings import setting

PLACES = ("partition", "account", "qos", "constraint", "exclude", "dependency")


@dataclass(frozen=True)
class ClusterConfig:
    """What every verb that submits asks of the cluster."""

    cluster: Literal["auto", "slurm", "local"] = setting(
        "auto", "where jobs run; auto takes slurm where there is sbatch, else local"
    )
    cpus_per_task: int | None = setting(None, "CPUs per rank, on Slurm; decoding images needs at least two", least=1)
    time: str | None = setting(None, "time limit of a job, as Slurm writes it, for example 8:00:00")
    mem: str | None = setting(None, "memory per node, as Slurm writes it, for example 64G")
    partition: str | None = setting(None, "partition of the job, as for sbatch")
    account: str | None = setting(None, "account of the job, as for sbatch")
    qos: str | None = setting(None, "quality of service, as for sbatch")
    constraint: str | None = setting(None, "features that nodes must have, as for sbatch")
    exclude: str | None = setting(None, "nodes to leave out, as for sbatch")
    dependency: str | None = setting(None, "jobs to wait for, as for sbatch")
    wait: bool = setting(False, "follow the jobs to their end (local jobs always are followed)")


def cluster_options(on: ClusterConfig, gpus_per_node: int | None, cluster: str) -> dict:
    """Fields of a `Request`: what was asked for on the command line, else what the site's settings say."""
    from jobs.launch.submitit_launcher import site_settings

    site = site_settings() if cluster == "slurm" else {}
    cpus = on.cpus_per_task or (int(site.get("cpus_per_gpu", 0)) if gpus_per_node else None) or None
    options = {name: getattr(on, name) or site.get(name) for name in PLACES}
    return options | {"cpus_per_task": cpus, "time": on.time or site.get("timelimit"), "mem": on.mem}


def local_gpus() -> int:
    """The number of this machine's GPUs; 0 where it has none."""
    import torch

    return torch.cuda.device_count()
