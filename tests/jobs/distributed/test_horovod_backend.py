"""What is Horovod's own in the process group: that it is there, what it is told at its start, whom its server hears."""

import contextlib
import os
import socket
import sys
from types import SimpleNamespace

import pytest
import torch

from jobs.distributed import horovod_backend, network, process_group
from jobs.distributed.placement import DistributedError, Placement


def test_a_rank_without_horovod_tells_the_others_of_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod.torch", None)
    _, about = process_group._about(Placement.find({}), "cpu", horovod_backend)
    assert about.error.startswith("Horovod cannot be imported (import of horovod.torch halted")
    assert about.error.endswith("run slurm/setup.sh")


@pytest.mark.parametrize(
    ("device", "shared", "own", "told"),
    [("cpu", False, None, None), ("cuda", False, None, "1"), ("cuda", False, "0", "0"), ("cuda", True, None, None)],
)
def test_over_nccl_the_gpu_waits_for_sums_unless_the_user_says_otherwise(monkeypatch, device, shared, own, told):
    """As Horovod reads it when it starts."""
    name, seen = "HOROVOD_ENABLE_ASYNC_COMPLETION", []
    environ = {key: value for key, value in os.environ.items() if key != name} | ({name: own} if own else {})
    monkeypatch.setattr(os, "environ", environ)
    hvd = SimpleNamespace(init=lambda: seen.append(os.environ.get(name)), rank=lambda: 0, size=lambda: 1)
    monkeypatch.setattr(horovod_backend, "_horovod", lambda: hvd)
    meeting = SimpleNamespace(links={}, interface="lo", address="127.0.0.1", port=1)
    settings = network.Settings(shared_gpu=shared)
    horovod_backend.join(meeting, Placement.find({}), settings, torch.device(device))
    assert seen == [told]


def test_horovods_server_hears_the_nodes_of_the_job_only():
    for allowed, heard in (({"127.0.0.1"}, b"404"), (set(), b"")):
        server = horovod_backend.Server("127.0.0.1", range(28500, 28600), [("node1", 2)], allowed)
        port = server.port
        assert port in range(28500, 28600)
        with socket.create_connection(("127.0.0.1", port)) as client:
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                client.sendall(b"GET /global/0 HTTP/1.0\r\n\r\n")
                answer = client.recv(1000)
        assert heard in answer and bool(heard) == bool(answer)
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DistributedError, match=rf"no free port on .* in HTR_PORTS={port}-{port}"):
            horovod_backend.Server("127.0.0.1", range(port, port + 1), [("node1", 2)], set())
