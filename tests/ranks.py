"""Real ranks for the tests, of Horovod or torch.distributed: forked from one process that has imported both, since
importing takes longer than most tests; and what they do once they have met.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import torch

from jobs.distributed import devices, gradient_buckets, placement, process_group, rendezvous
from jobs.distributed.placement import DistributedError
from jobs.training.metrics import MetricsLogger

KEY = "slurm-17-0-0-38559"
START = 5.0  # seconds that ranks wait for one that never comes


# --- what the ranks do


def work(world: process_group.ProcessGroup) -> None:
    """Everything a ring can do; what came out goes to the test as JSON."""
    torch.manual_seed(world.rank)  # different on every rank until broadcast
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    model[1].num_batches_tracked += world.rank
    world.broadcast_parameters(model)
    before = [value.tolist() for value in model.state_dict().values()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    wait = world.sum_gradients(model.parameters(), passes=2)
    for _ in range(2):
        optimizer.zero_grad()
        for sample in samples(world.rank):
            (model[2](model[0](sample[None])) ** 2).sum().backward()
        wait()
        gradient = model[0].weight.grad.tolist()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    halves = {name: rounded(world, name) for name in ("none", "fp16", "bf16")}
    answer = world.ask({"stop": float(world.rank == 1), "limit": 0})
    try:
        world.on_root(lambda: (_ for _ in ()).throw(ValueError("the disk is full")))
        raised = ""
    except ValueError as error:
        raised = str(error)
    world.barrier()
    said = {
        "rank": world.rank,
        "size": world.size,
        "before": before,
        "gradient": gradient,
        "weights": model[0].weight.tolist(),
        "halves": halves,
        "ask": answer(),
        "sum": world.sum({"b": 2.0**53, "a": world.rank}),
        "any": [world.any(world.rank == 1), world.any(False)],
        "object": world.broadcast_object({"rank": world.rank}, "test"),
        "gather": world.gather(str(world.rank)),
        "on_root": world.on_root(lambda x: [x, world.rank], "x"),
        "raised": raised,
        "hosts": world.place.hosts,
    }
    print(json.dumps(said))


def rounded(world: process_group.ProcessGroup, compression: str) -> list:
    """Gradients of a layer in several buckets, one of them that no backward comes to, one that only rank 0 does."""
    layers = [torch.nn.Linear(4, outputs, bias=False) for outputs in (1, 3, 1, 5)]
    before, gradient_buckets.LAST_BUCKET_BYTES, gradient_buckets.BUCKET_BYTES = (
        (gradient_buckets.LAST_BUCKET_BYTES, gradient_buckets.BUCKET_BYTES),
        16,
        48,
    )
    try:
        wait = world.sum_gradients((layer.weight for layer in layers), compression)
    finally:
        gradient_buckets.LAST_BUCKET_BYTES, gradient_buckets.BUCKET_BYTES = before
    used = [layers[0], layers[1]] + [layers[3]] * (world.rank == 0)
    sum((layer(samples(world.rank)) * 3).sum() for layer in used).backward()
    wait()
    return [layer.weight.grad.tolist() for layer in layers]


def samples(rank: int) -> torch.Tensor:
    return torch.arange(8.0).reshape(2, 4) / 10 + rank


def fail_on_root(world: process_group.ProcessGroup) -> None:
    class Odd(Exception):  # cannot be pickled: it is no name of this module
        pass

    world.on_root(lambda: (_ for _ in ()).throw(Odd("the table has no column text")) if world.rank == 0 else None)


def die(world: process_group.ProcessGroup) -> None:
    if world.rank == 1:
        os._exit(9)
    world.sum({"steps": 1})


def slow(world: process_group.ProcessGroup) -> None:
    """Log lines of which the second rank took twice the time, as if it had been measured; then all take the same."""
    logger, said = MetricsLogger(), []
    for line in range(6):
        logger.timer.seconds = {"compute": 2.0 if world.rank == 1 and line < 4 else 1.0, "exchange": 0.0, "step": 0.0}
        logger.timer.seconds["step"] = logger.timer.seconds["compute"]
        logger.began = time.monotonic() - 10  # seconds since the last log line: the same on both
        logger.collect(world)
        said.append(logger.slow_rank)
    print(json.dumps(said))


# --- starting them


def environment(rank: int, tasks: str = "2", nodes: str = "node1", **more: str) -> dict[str, str]:
    """What srun sets for a task, on nodes that exist only by name."""
    counts = placement.expand_tasks(tasks)
    node = next(index for index in range(len(counts)) if rank < sum(counts[: index + 1]))
    numbers = {"PROCID": rank, "NODEID": node, "LOCALID": rank - sum(counts[:node]), "STEP_NUM_TASKS": sum(counts)}
    texts = {"JOB_ID": 17, "STEP_ID": 0, "STEP_LAUNCHER_PORT": 38559}
    lists = {"STEP_NODELIST": nodes, "STEP_TASKS_PER_NODE": tasks}
    slurm = {f"SLURM_{name}": str(value) for name, value in (numbers | texts | lists).items()}
    return slurm | {"HTR_START_TIMEOUT": "200", "HTR_PEER_TIMEOUT": "200"} | more


def be_rank(
    folder: str, env: dict[str, str], work: str, device: str, gpus: list[str], dead_port: int, wait: str, backend: str
):
    """One rank, as the main program of a job does it: a DistributedError is one line, without a traceback."""
    os.environ.update(env)
    while wait and not (Path(folder) / wait).exists():  # what must have happened before this rank begins
        time.sleep(0.02)
    if gpus:  # of which a library can sum on
        devices.visible_gpus = process_group.visible_gpus = lambda: gpus
        import_module(f"jobs.distributed.{backend}_backend").check = torch.cuda.set_device = lambda device: None
    if dead_port:  # as if the file came from a start before this one, or a firewall stood between
        read = rendezvous.read

        def misled(path: Path) -> dict | None:
            note = read(path)
            return note | {"port": dead_port} if note and "port" in note else note

        rendezvous.read = misled
    try:
        with process_group.start(Path(folder), device, backend=backend) as world:
            globals()[work](world)
    except DistributedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def nursery() -> None:
    """The process that forks ranks: a line of JSON in, a list of ranks; a line out, how each ended."""
    import horovod.torch  # noqa: F401  (so that the ranks have it)

    torch.set_num_threads(1)
    for line in sys.stdin:
        request, children = json.loads(line), {}
        for number, rank in enumerate(request["ranks"]):
            log = Path(request["folder"]) / f"log-{number}"
            child = os.fork()
            if child == 0:
                for target, end in ((sys.stdout, "out"), (sys.stderr, "err")):
                    os.dup2(os.open(f"{log}.{end}", os.O_WRONLY | os.O_CREAT), target.fileno())
                code = 70
                with contextlib.suppress(SystemExit):
                    try:
                        code = be_rank(request["folder"], **rank)
                    except BaseException:
                        sys.excepthook(*sys.exc_info())
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            children[child] = log
        killer = threading.Timer(240, lambda alive=children: [os.kill(child, signal.SIGKILL) for child in alive])
        killer.start()
        ends = []
        for child, log in list(children.items()):
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            del children[child]
            ends.append(
                [code, Path(f"{log}.out").read_text(encoding="utf-8"), Path(f"{log}.err").read_text(encoding="utf-8")]
            )
        killer.cancel()
        print(json.dumps(ends), flush=True)


class Ranks:
    """Starts ranks in the nursery and hands back (exit code, stdout, stderr) of each."""

    def __init__(self, process: subprocess.Popen, folder: Path, backend: str = "horovod") -> None:
        self.process, self.folder, self.backend = process, folder, backend

    def start(self, *ranks: dict, work: str = "work") -> None:
        base = {"work": work, "device": "cpu", "gpus": [], "dead_port": 0, "wait": "", "backend": self.backend}
        request = {"folder": str(self.folder), "ranks": [base | rank for rank in ranks]}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def ends(self) -> list[tuple[int, str, str]]:
        return json.loads(self.process.stdout.readline())

    def results(self, *ranks: dict, work: str = "work") -> list[dict]:
        self.start(*ranks, work=work)
        ends = self.ends()
        assert [code for code, _, _ in ends] == [0] * len(ranks), ends
        assert not list((self.folder / "rendezvous").iterdir())
        assert all(err == "" for _, _, err in ends)
        return [json.loads(out) for _, out, _ in ends]

    def errors(self, *ranks: dict, work: str = "work") -> list[str]:
        """The one line that each rank ended with."""
        self.start(*ranks, work=work)
        return [self.last_line(end) for end in self.ends()]

    @staticmethod
    def last_line(end: tuple[int, str, str]) -> str:
        code, _, err = end
        assert code == 1, end
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith("error: ")
        return err.splitlines()[-1].removeprefix("error: ")


def rank(number: int, tasks: str = "2", *, nodes: str = "node1", more: dict | None = None, **how) -> dict:
    return {"env": environment(number, tasks, nodes, **(more or {})), **how}


@contextlib.contextmanager
def open_nursery() -> Iterator[subprocess.Popen]:
    """The process that forks the ranks, without what Slurm or a site have set here."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "HTR_", "HOROVOD"))}
    env = inherited | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, __file__], env=env, **pipes) as process:
        yield process
        process.stdin.close()


if __name__ == "__main__":
    nursery()
