"""RPC between the supervisor, the control process and the workers.

Each child has one unix stream socketpair to the supervisor, which is the
switchboard: a child that calls "worker:3" sends the call up, the supervisor
sends it down again under an id of its own and carries the answer back.
Nothing else connects the processes, so a child needs one inherited fd and a
dead peer is noticed at once, as end of file.

Frames are a 4-byte big-endian length and that many bytes of JSON, one object:

    call    {"id": n, "to": target, "method": m, "params": {…}, "timeout_s": t}
    answer  {"re": n, "result": …}   or   {"re": n, "error": text}

Everything is bounded: a frame by MAX_FRAME_BYTES, the calls in flight on a
link by MAX_PENDING, and what waits to be sent to a peer that does not read by
MAX_UNSENT_BYTES.  A frame that breaks the rules ends the link; whoever waits
for an answer on a link that ends gets HubError.

Frames carry secrets (the configuration): none is ever logged, and an error
that a handler did not foresee travels as its type's name only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
import json
import logging
import signal
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

log = logging.getLogger("tenant_proxy.hub")

#: one frame; a snapshot of 20,000 clients takes about 8 MB, 10,000 tenants of a catalog about 15
MAX_FRAME_BYTES = 256 * 1024 * 1024
#: calls that a link may have unanswered, in each direction
MAX_PENDING = 1024
#: waiting to be sent to a peer that does not read
MAX_UNSENT_BYTES = 2 * MAX_FRAME_BYTES
#: how much longer a caller waits than the callee's own time-out, so that the better error arrives
SLACK_S = 1.0

_LENGTH = struct.Struct("!I")
#: prctl(2)
_PR_SET_PDEATHSIG = 1

Handler = Callable[[dict[str, Any]], Awaitable[Any] | Any]
#: (name of the calling peer, params) -> result; the supervisor must know who asks
CallerHandler = Callable[[str, dict[str, Any]], Awaitable[Any] | Any]
#: what a link does with a call that came in: (target, method, params, timeout_s) -> result
Dispatch = Callable[[str, str, dict[str, Any], float], Awaitable[Any]]


class HubError(Exception):
    """A call failed: the peer is gone, did not answer in time, or refused it."""


class _Link:
    """One end of a socketpair: frames, calls waiting for answers, calls being answered."""

    def __init__(self, name: str, dispatch: Dispatch) -> None:
        self.name = name
        self._dispatch = dispatch
        self._next_id = 0
        #: id -> future of the answer; the caller owns the future and takes it out
        self._pending: dict[int, asyncio.Future[Any]] = {}
        #: calls of the peer that are being answered; kept so that they are not collected
        self._serving: set[asyncio.Task[None]] = set()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._pump: asyncio.Task[None]
        self.gone = asyncio.Event()

    async def start(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._reader, self._writer = await asyncio.open_unix_connection(sock=sock)
        self._pump = asyncio.create_task(self._read_frames(), name=f"hub {self.name}")

    def fileno(self) -> int:
        return int(self._writer.get_extra_info("socket").fileno())

    def close(self) -> None:
        """Ends the link at once; both sides see end of file."""
        self._writer.close()
        self._pump.cancel()
        self._lose()

    async def call(self, target: str, method: str, params: dict[str, Any], timeout_s: float) -> Any:
        if self.gone.is_set():
            raise HubError(f"{self.name} is gone")
        if len(self._pending) >= MAX_PENDING:
            raise HubError(f"{self.name} has {MAX_PENDING} calls unanswered")
        self._next_id += 1
        number = self._next_id
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            self._send(
                {"id": number, "to": target, "method": method, "params": params, "timeout_s": timeout_s}
            )
            async with asyncio.timeout(timeout_s + SLACK_S):
                return await future
        except TimeoutError:
            raise HubError(f'{target} did not answer "{method}" within {timeout_s:g} s') from None
        finally:
            del self._pending[number]

    def _send(self, message: dict[str, Any]) -> None:
        data = _packed(message)
        if len(data) > MAX_FRAME_BYTES:
            raise HubError(f"message of {len(data)} bytes is larger than {MAX_FRAME_BYTES}")
        if self.gone.is_set():
            raise HubError(f"{self.name} is gone")
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            raise HubError(f"{self.name} does not read")
        self._writer.write(_LENGTH.pack(len(data)) + data)

    async def _read_frames(self) -> None:
        try:
            while True:
                (size,) = _LENGTH.unpack(await self._reader.readexactly(4))
                if size > MAX_FRAME_BYTES:
                    raise ValueError(f"frame of {size} bytes")
                self._on_frame(_unpacked(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the peer is gone, which is how links end
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.error("hub link %s broke the protocol: %s", self.name, type(error).__name__)
        finally:
            self._writer.close()
            self._lose()
            # How the connection ended is known; asyncio would log it with a traceback if nobody asked.
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    def _on_frame(self, frame: dict[str, Any]) -> None:
        if "re" in frame:
            future = self._pending.get(frame["re"])
            if future is None or future.done():
                return  # answered after its caller's time-out
            if "error" in frame:
                future.set_exception(HubError(str(frame["error"])))
            else:
                future.set_result(frame["result"])
            return
        if len(self._serving) >= MAX_PENDING:
            self._answer(frame["id"], error="too many calls at once")
            return
        method = str(frame["method"])
        task = asyncio.create_task(self._serve(frame, method), name=f"hub {self.name} {method}")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, frame: dict[str, Any], method: str) -> None:
        try:
            result = await self._dispatch(
                str(frame["to"]), method, frame.get("params") or {}, float(frame.get("timeout_s", 5))
            )
        except HubError as error:
            self._answer(frame["id"], error=str(error))
        except Exception as error:  # the peer must hear of it whatever it is
            log.exception("hub method %s failed", method)
            self._answer(frame["id"], error=f"{method} failed: {type(error).__name__}")
        else:
            self._answer(frame["id"], result=result)

    def _answer(self, number: int, result: Any = None, error: str | None = None) -> None:
        try:
            self._send({"re": number, "result": result} if error is None else {"re": number, "error": error})
        except HubError as problem:
            if not self.gone.is_set():
                # too large, or the peer does not read: it must not wait for nothing
                self._writer.write(_frame({"re": number, "error": str(problem)}))

    def _lose(self) -> None:
        if self.gone.is_set():
            return
        self.gone.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(HubError(f"{self.name} is gone"))
        for task in self._serving:
            task.cancel()


def _frame(message: dict[str, Any]) -> bytes:
    data = _packed(message)
    return _LENGTH.pack(len(data)) + data


def _packed(message: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(message, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # a client's words that are no UTF-8 (half of a surrogate pair stands for a byte), a large number
        return json.dumps(message, separators=(",", ":")).encode()


def _unpacked(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        return json.loads(data)


async def _run(handler: Callable[..., Any], *args: Any) -> Any:
    result = handler(*args)
    return await result if inspect.isawaitable(result) else result


class HubClient:
    """A child's end: calls others, answers what it has handlers for."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._link = _Link("supervisor", self._dispatch)

    @classmethod
    async def connect(cls, fd: int) -> HubClient:
        """Takes over the inherited socket `fd`, which nobody else may use afterwards.

        Register handlers right after, before the first await: a call that finds
        none is refused.
        """
        client = cls()
        await client._link.start(socket.socket(fileno=fd))
        return client

    def on(self, method: str, handler: Handler) -> None:
        """`handler(params)` answers `method` with something JSON-able; the caller is told its HubError."""
        self._handlers[method] = handler

    async def call(
        self, target: str, method: str, params: dict[str, Any] | None = None, timeout_s: float = 5
    ) -> Any:
        """The result of `method` at `target`; HubError if it fails or takes longer than `timeout_s`.

        `target` is "supervisor", "control", "worker:3", or "workers": then the result
        is a list, in the order of slots, of {"worker": slot, "incarnation": n,
        "result": …} of those that answered in time (n grows with each start of a worker).
        """
        return await self._link.call(target, method, params or {}, timeout_s)

    def fileno(self) -> int:
        """The descriptor that calls and answers come from; the loop reads it."""
        return self._link.fileno()

    async def closed(self) -> None:
        """Returns when the supervisor is gone; the process must then exit."""
        await self._link.gone.wait()

    @property
    def is_closed(self) -> bool:
        return self._link.gone.is_set()

    def close(self) -> None:
        self._link.close()

    async def _dispatch(self, target: str, method: str, params: dict[str, Any], timeout_s: float) -> Any:
        handler = self._handlers.get(method)
        if handler is None:
            raise HubError(f'no method "{method}"')
        async with asyncio.timeout(timeout_s):
            return await _run(handler, params)


class Peer:
    """The supervisor's view of one child's link."""

    def __init__(self, name: str, worker: int | None, incarnation: int, link: _Link) -> None:
        self.name = name
        #: slot, None for the control process
        self.worker = worker
        self.incarnation = incarnation
        self.link = link

    def close(self) -> None:
        self.link.close()


class Hub:
    """The switchboard, in the supervisor."""

    def __init__(self) -> None:
        self._handlers: dict[str, CallerHandler] = {}
        self._peers: dict[str, Peer] = {}

    def on(self, method: str, handler: CallerHandler) -> None:
        """`handler(caller, params)` answers calls to "supervisor"; `caller` is "control" or "worker:N"."""
        self._handlers[method] = handler

    async def attach(
        self, name: str, sock: socket.socket, *, worker: int | None = None, incarnation: int = 0
    ) -> Peer:
        """Serves a child's link; the newest under a name is the one that is called by it."""

        async def dispatch(target: str, method: str, params: dict[str, Any], timeout_s: float) -> Any:
            return await self._route(name, target, method, params, timeout_s)

        peer = Peer(name, worker, incarnation, _Link(name, dispatch))
        await peer.link.start(sock)
        self._peers[name] = peer
        return peer

    def detach(self, peer: Peer) -> None:
        peer.close()
        if self._peers.get(peer.name) is peer:
            del self._peers[peer.name]

    async def call(
        self, target: str, method: str, params: dict[str, Any] | None = None, timeout_s: float = 5
    ) -> Any:
        """Calls one child, "control" or "worker:3"."""
        peer = self._peers.get(target)
        if peer is None:
            raise HubError(f'"{target}" is not there')
        return await self._call_within(peer, method, params or {}, timeout_s)

    async def call_workers(
        self, method: str, params: dict[str, Any] | None = None, timeout_s: float = 5
    ) -> list[dict[str, Any]]:
        """As HubClient.call("workers", …)."""
        peers = sorted(
            (p for p in self._peers.values() if p.worker is not None and not p.link.gone.is_set()),
            key=lambda p: p.worker or 0,
        )
        answers = await asyncio.gather(
            *(self._call_within(p, method, params or {}, timeout_s) for p in peers), return_exceptions=True
        )
        results = []
        for peer, answer in zip(peers, answers, strict=True):
            if isinstance(answer, HubError):
                log.debug("%s did not answer %s: %s", peer.name, method, answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                results.append({"worker": peer.worker, "incarnation": peer.incarnation, "result": answer})
        return results

    async def _call_within(self, peer: Peer, method: str, params: dict[str, Any], timeout_s: float) -> Any:
        # No slack here: the caller behind us waits for timeout_s + SLACK_S only.
        try:
            async with asyncio.timeout(timeout_s):
                return await peer.link.call(peer.name, method, params, timeout_s)
        except TimeoutError:
            raise HubError(f'{peer.name} did not answer "{method}" within {timeout_s:g} s') from None

    async def _route(
        self, caller: str, target: str, method: str, params: dict[str, Any], timeout_s: float
    ) -> Any:
        if target == "supervisor":
            handler = self._handlers.get(method)
            if handler is None:
                raise HubError(f'no method "{method}"')
            return await _run(handler, caller, params)
        if target == "workers":
            return await self.call_workers(method, params, timeout_s)
        return await self.call(target, method, params, timeout_s)


def die_with_parent() -> None:
    """Asks the kernel to kill this process when the one that started it dies (Linux).

    A child also sees the hub close; this is for one that is too stuck to look.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        pass  # no prctl here: `closed` has to do
