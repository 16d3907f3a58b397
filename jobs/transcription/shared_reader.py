"""One reader for all worker processes of a task: this process holds the GPU, they cut, decode images and write parts.

A worker sends a batch of lines, and gets what the network makes of it. Where CTC's frames are all that its decoder
needs, it gets their log-probabilities and searches by itself, on a CPU of its own; a reader with an attention decoder,
which is a network too, gives it the texts. Batches come from one process and go back to it: those of a chunk hang on
the chunk alone, whoever reads it.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from multiprocessing import AuthenticationError, current_process
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import torch

from htr.reader import Prediction, Reader
from htr.types import EncoderOutput
from jobs.distributed.devices import batch_fits

KNOCK_S = 1.0  # seconds; longer means that others wait to be let in, and they wake the thread as well


class SharedReader:
    """Serves a reader to other processes of this task from now on. A context; `address`: for `RemoteReader.connect`."""

    def __init__(self, reader: Reader, mixed: Callable[[], AbstractContextManager]) -> None:
        """`mixed`: the context of a forward pass, see jobs.distributed.precision."""
        self.reader, self.mixed = reader, mixed
        self.lock = threading.Lock()  # of the device: batches one after the other
        self.closed = False
        # a socket in a folder of this process alone, with a key that its own children know
        self.listener = Listener(family="AF_UNIX", authkey=key())
        self.address = self.listener.address
        self.thread = threading.Thread(target=self.accept, name="shared reader", daemon=True)
        self.thread.start()

    def __enter__(self) -> "SharedReader":
        return self

    def __exit__(self, *_) -> None:
        self.closed = True
        # the thread that waits for one more to come goes on; it may have ended already, so nothing waits for its answer
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as knock:
            knock.settimeout(KNOCK_S)
            knock.connect(self.address)
        self.thread.join()
        self.listener.close()

    def accept(self) -> None:
        while not self.closed:
            with contextlib.suppress(OSError, EOFError, AuthenticationError):  # who knocked is gone, or a stranger
                serve = threading.Thread(target=self.serve, args=(self.listener.accept(),), daemon=True)
                serve.start()

    def serve(self, connection: Connection) -> None:
        with connection:
            while True:
                try:
                    asked = connection.recv()
                except (EOFError, OSError):  # the worker has ended
                    return
                try:
                    with self.lock, batch_fits(asked[0]):
                        answer = self.answer(*asked)
                except Exception as error:
                    answer = error
                with contextlib.suppress(OSError):  # it was killed meanwhile
                    connection.send(answer)

    def answer(self, images: Any, widths: Any, fields: Sequence[str | None] | None) -> tuple | list[Prediction]:
        given = torch.from_numpy(images), torch.from_numpy(widths)
        with self.mixed():
            if needs_network(self.reader):
                return self.reader.read_batch(*given, fields)
            encoded = self.reader.encode(*given)
            return encoded.lengths.cpu().numpy(), encoded.log_probs.cpu().numpy()


def key() -> bytes:
    """Of this process, which its children inherit."""
    return bytes(current_process().authkey)


def needs_network(reader: Reader) -> bool:
    """Whether its decoder asks the network for more than the encoder's frames."""
    return hasattr(reader.model, "score")


class RemoteReader(Reader):
    """In a worker: as the reader itself, but its network is in another process. For one thread."""

    connection: Connection

    @classmethod
    def connect(cls, address: str, model: Path, decoding: Path | None) -> "RemoteReader":
        self = cls.load(model, "cpu", decoding)  # for its decoder, charset and geometry
        self.connection = Client(address, family="AF_UNIX", authkey=key())
        return self

    def read_batch(
        self, images: torch.Tensor, widths: torch.Tensor, fields: Sequence[str | None] | None = None
    ) -> list[Prediction]:
        """See Reader. Raises what went wrong there."""
        self.connection.send((images.numpy(), widths.numpy(), fields))
        try:
            answer = self.connection.recv()
        except EOFError:
            raise OSError("the process that reads for this worker has ended") from None
        if isinstance(answer, Exception):
            raise answer
        if needs_network(self):
            return answer
        lengths, log_probs = map(torch.from_numpy, answer)
        encoded = EncoderOutput(log_probs.new_empty(0), lengths, log_probs)
        return [self.text(reading) for reading in self.decode(encoded, fields)]
