"""The parent of all processes: binds the sockets, starts the children, restarts what dies.

It holds what must outlive a child (listening sockets, mailboxes, the shared
counters, the configuration in force, the metrics' memory of dead workers) and
nothing of the data plane, so that it has little to fail by.

    SIGHUP    reload: the files are read and checked whole, then swapped; a bad file changes nothing
    SIGTERM   drain: no new clients, those there may finish within timeouts.drain_s
    SIGINT    stop now: clients get 57P01
    a second SIGTERM or SIGINT    kills the workers at once
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tenant_proxy import hub
from tenant_proxy.admin.pauses import Pauses
from tenant_proxy.admin.stats_window import StatsWindow
from tenant_proxy.children import Child, Phase, RestartPolicy, Start, start_afresh
from tenant_proxy.config.load import Loaded
from tenant_proxy.config.load import load as load_config
from tenant_proxy.config.problems import ConfigError, Problem
from tenant_proxy.config.reload import keep_fixed
from tenant_proxy.config.schema import Config
from tenant_proxy.config.transport import packed
from tenant_proxy.listeners import Listener, ListenError, open_listeners
from tenant_proxy.nursery import Nursery
from tenant_proxy.obs import log as obs_log
from tenant_proxy.obs.log import get_logger
from tenant_proxy.preparing import check_fd_limit, http_of, log_changes, needs_control, open_http
from tenant_proxy.relay import mailbox
from tenant_proxy.served import Indexes, ServedStore
from tenant_proxy.shm import MAX_SLOTS, SharedCounters
from tenant_proxy.system import notify
from tenant_proxy.usage_shm import UsageMemory

log = get_logger("supervisor")
T = TypeVar("T")

#: "no limit" of a drain (timeouts.drain_s: 0), as a number that JSON and timers take
UNLIMITED_S = 31_536_000.0
RELOAD_TIMEOUT_S = 60.0
#: how long a reload waits for workers that are just starting
STARTING_PATIENCE_S = 5.0
STATS_TIMEOUT_S = 4.0
DRAIN_CALL_TIMEOUT_S = 2.0
#: children that never came up, failing this often in a row, end the start
MAX_START_FAILURES = 5

WORKER = (sys.executable, "-m", "tenant_proxy.worker")
CONTROL = (sys.executable, "-m", "tenant_proxy.control")


class Stop(enum.IntEnum):
    """How urgently to stop; only ever grows."""

    NO = 0
    DRAIN = 1
    FAST = 2
    NOW = 3


@dataclass(frozen=True, slots=True)
class ReloadResult:
    errors: list[str]
    warnings: list[str]
    generation: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": not self.errors,
            "errors": self.errors,
            "warnings": self.warnings,
            "generation": self.generation,
        }


class Supervisor:
    """Owns every long-lived thing; `run` returns the exit status."""

    def __init__(
        self,
        load: Callable[[], Loaded],
        config: Config,
        *,
        policy: RestartPolicy | None = None,
        start_process: Start = start_afresh,
    ) -> None:
        self._load = load
        self._start_process = start_process
        self._config = config
        self._policy = policy or RestartPolicy()
        self._generation = 1
        self._incarnations = itertools.count(1)
        self._hub = hub.Hub()
        self._started_s = time.time()
        self._stats = StatsWindow(time.monotonic())
        self._reloads = {"ok": 0, "failed": 0}
        self._reload_lock = asyncio.Lock()
        self._stop = Stop.NO
        self._stop_grown = asyncio.Event()
        self._announced = False
        #: what the control process wants back after a restart; opaque here
        self._ledger: Any = None
        self._usage_kept: Any = None
        #: tenants that are over their storage
        self._full: list[str] = []
        self._pauses = Pauses()
        self._listeners: list[Listener] = []
        self._http: list[Listener] = []
        self._mailboxes: list[tuple[socket.socket, socket.socket]] = []
        self._counters: SharedCounters
        self._usage: UsageMemory
        #: of what is counted in it: another start counts anew
        self._boot = uuid.uuid4().hex
        self._indexes = Indexes()
        self._served = ServedStore()
        #: a configuration on its way to the children
        self._transport: tuple[Config, Any] | None = None
        #: worker's name -> generation of the configuration that it was given
        self._given: dict[str, int] = {}
        self._workers: list[Child] = []
        self._control: Child | None = None
        #: background work that must not be collected before it ends
        self._tasks: set[asyncio.Task[Any]] = set()
        for method, handler in (
            ("bootstrap", self._on_bootstrap),
            ("ready", self._on_ready),
            ("reload", self._on_reload),
            ("status", self._on_status),
            ("stats", self._on_stats),
            ("keep_ledger", self._on_keep_ledger),
            ("serve", self._on_serve),
            ("catch_up", self._on_catch_up),
            ("places", self._on_places),
            ("keep_usage", self._on_keep_usage),
            ("full", self._on_full),
            ("pause", self._on_pause),
        ):
            self._hub.on(method, handler)

    # --- life ---------------------------------------------------------------

    async def run(self) -> int:
        try:
            self._bind()
        except ListenError as error:
            log.error(str(error))
            self._close_sockets()
            return 1
        check_fd_limit(self._config)
        self._install_signals()
        self._counters = SharedCounters()
        self._usage = UsageMemory()
        self._indexes.of_config(self._config)
        for _ in range(self._config.workers):
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in pair:
                end.setblocking(False)
            self._mailboxes.append(pair)
        self._workers = [self._make_worker(slot) for slot in range(self._config.workers)]
        for worker in self._workers:
            worker.start()
        if needs_control(self._config):
            self._start_control()
        status = 0
        if not await self._wait_first_ready():
            status = 1
        else:
            await self._wait_for_stop(Stop.DRAIN)
        await self._shut_down()
        return status

    def _bind(self) -> None:
        config = self._config
        if config.workers > MAX_SLOTS:
            raise ListenError(f"workers: {config.workers} is more than the {MAX_SLOTS} that are supported")
        listen = config.listen
        self._listeners = open_listeners(
            listen.addresses, listen.port, listen.backlog, listen.unix_socket_dir
        )
        self._http = open_http(config)

    def _make_worker(self, slot: int) -> Child:
        return Child(
            f"worker:{slot}",
            WORKER,
            self._hub,
            worker=slot,
            pass_fds=self._worker_fds,
            policy=self._policy,
            next_incarnation=self._incarnations.__next__,
            on_exit=self._on_worker_exit,
            start_process=self._start_process,
        )

    def _worker_fds(self) -> list[int]:
        mailboxes = [end.fileno() for pair in self._mailboxes for end in pair]
        return (
            [lis.sock.fileno() for lis in self._listeners] + mailboxes + [self._counters.fd, self._usage.fd]
        )

    def _start_control(self) -> None:
        self._control = Child(
            "control",
            CONTROL,
            self._hub,
            pass_fds=lambda: [self._usage.fd] + [lis.sock.fileno() for lis in self._http],
            policy=self._policy,
            next_incarnation=self._incarnations.__next__,
            start_process=self._start_process,
        )
        self._control.start()

    def _on_worker_exit(self, child: Child) -> None:
        assert child.worker is not None
        self._counters.clear_row(child.worker, self._indexes.of_growing())
        self._usage.forget_clients(child.worker, self._indexes.of_tenants().values())
        living = next((w for w in self._workers if w.phase is Phase.READY and w is not child), None)
        if living is not None and living.worker is not None:
            # they need not wait for its successor
            mailbox.pass_on(self._mailboxes[child.worker][0], self._mailboxes[living.worker][1])

    async def _wait_first_ready(self) -> bool:
        """True when a stop was asked for or all workers are ready; False if they do not come up."""
        while self._stop is Stop.NO:
            if all(w.was_ready for w in self._workers):
                self._announce()
                return True
            hopeless = [w for w in self._workers if not w.was_ready and w.failures >= MAX_START_FAILURES]
            if hopeless and not any(w.was_ready for w in self._workers):
                log.error("workers do not start, giving up", last_exit=hopeless[0].last_exit)
                return False
            await _first(self._stop_grown.wait(), *(w.changed() for w in self._workers))
        return True

    def _announce(self) -> None:
        if self._announced:
            return
        self._announced = True
        log.info(
            "ready",
            listen=", ".join(lis.address for lis in self._listeners),
            workers=len(self._workers),
            metrics=", ".join(f"http://{lis.address}/metrics" for lis in self._http) or "off",
            pid=os.getpid(),
        )
        notify("READY=1")

    async def _wait_for_stop(self, at_least: Stop) -> None:
        while self._stop < at_least:
            await self._stop_grown.wait()

    # --- signals ------------------------------------------------------------

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._on_sighup)
        loop.add_signal_handler(signal.SIGTERM, self.request_stop, Stop.DRAIN)
        loop.add_signal_handler(signal.SIGINT, self.request_stop, Stop.FAST)

    def _on_sighup(self) -> None:
        self._background(self.reload(), "reload")

    def request_stop(self, how: Stop) -> None:
        self._stop = how if self._stop is Stop.NO else Stop.NOW
        self._stop_grown.set()
        self._stop_grown = asyncio.Event()

    def _background(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- stop ---------------------------------------------------------------

    async def _shut_down(self) -> None:
        """Workers first; the control process answers /readyz and /metrics until they are gone."""
        notify("STOPPING=1")
        fast = self._stop is not Stop.DRAIN
        drain_s = 0.0 if fast else self._config.timeouts.drain_s or UNLIMITED_S
        log.info("stopping" if fast else "draining", workers=len(self._workers), drain_s=drain_s)
        for worker in self._workers:
            worker.give_up()
        answers = await self._hub.call_workers("drain", {"timeout_s": drain_s}, DRAIN_CALL_TIMEOUT_S)
        self._close_listeners()
        told = {answer["worker"] for answer in answers}
        for worker in self._workers:
            if worker.worker not in told:
                worker.send_signal(signal.SIGTERM)  # not far enough to have clients
        await _first(
            asyncio.wait([asyncio.create_task(worker.join()) for worker in self._workers]),
            self._wait_for_stop(Stop.NOW),
            timeout_s=drain_s + self._policy.exit_grace_s,
        )
        for worker in self._workers:
            if worker.pid is not None:
                log.warning("killing a worker that has not finished", child=worker.name, pid=worker.pid)
                worker.send_signal(signal.SIGKILL)
        await asyncio.gather(*(worker.join() for worker in self._workers))
        if self._control is not None:
            await self._control.stop(grace_s=self._policy.exit_grace_s)
        for task in self._tasks:
            task.cancel()
        self._close_sockets()
        self._counters.close()
        self._usage.close()
        log.info("stopped")

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def _close_sockets(self) -> None:
        self._close_listeners()
        for listener in self._http:
            listener.close()
        for pair in self._mailboxes:
            for end in pair:
                end.close()

    # --- reload -------------------------------------------------------------

    async def reload(self) -> ReloadResult:
        """Builds the whole configuration anew and swaps it, or changes nothing."""
        async with self._reload_lock:
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                result = await self._reload()
            finally:
                notify("READY=1")
        self._reloads["failed" if result.errors else "ok"] += 1
        for warning in result.warnings:
            log.warning(warning)
        if result.errors:
            for error in result.errors:
                log.error(error)
            log.error(
                "reload failed, the configuration in force stays",
                problems=len(result.errors), generation=result.generation,
            )  # fmt: skip
        else:
            log.info("reloaded", generation=result.generation)
        return result

    async def _reload(self) -> ReloadResult:
        if self._stop is not Stop.NO:
            return self._refused(["the proxy is stopping"])
        try:
            loaded = await asyncio.to_thread(self._load)
        except ConfigError as error:
            return self._refused([str(problem) for problem in _errors_of(error)])
        except Exception as error:  # a loader that fails otherwise must not end the service
            log.exception("configuration loader failed")
            return self._refused([f"configuration loader failed: {type(error).__name__}"])
        config, fixed = keep_fixed(self._config, loaded.config)
        warnings = [str(problem) for problem in loaded.warnings] + fixed
        http = None
        if http_of(config) != http_of(self._config):
            try:
                http = open_http(config)
            except ListenError as error:
                return self._refused([str(error)])
        refusal = await self._try_out(config, self._generation + 1)
        if refusal is not None:
            for listener in http or ():
                listener.close()
            return self._refused([refusal])
        before = self._config
        log_changes(before, config)
        self._config = config
        self._generation += 1
        obs_log.configure(config.log.level, config.log.format)
        await self._bring_all_up_to_date()
        other = before.catalog != config.catalog or needs_control(config) != (self._control is not None)
        if http is not None or other:
            await self._replace_control(self._http if http is None else http)
        elif self._control is not None:
            await self._tell_control(config)
        return ReloadResult([], warnings, self._generation)

    def _refused(self, errors: list[str]) -> ReloadResult:
        return ReloadResult(errors, [], self._generation)

    async def _try_out(self, config: Config, generation: int) -> str | None:
        """Gives a new configuration to one worker alone; what it can't use (returns why) the others,
        being alike, can't use either, and are not disturbed."""
        self._indexes.of_config(config)
        self._indexes.of_served(self._served.tenants.values(), self._served.logins.values(), config)
        worker = next((w for w in self._workers if w.phase is Phase.READY), None)
        if worker is None:
            return None  # all restarting: they get it when they start
        try:
            await self._give(worker, config, generation)
        except hub.HubError as error:
            if worker.phase is Phase.READY:
                return f"{worker.name} could not use the new configuration: {error}"
        return None

    async def _bring_all_up_to_date(self) -> None:
        """One that is starting may serve by the older configuration already, before it says that it is ready:
        a reload that is done must mean that a password taken away is of no use.
        """
        await asyncio.gather(*(self._bring_up_to_date(worker) for worker in self._workers))
        until = time.monotonic() + STARTING_PATIENCE_S
        while (left := until - time.monotonic()) > 0:
            late = [worker for worker in self._workers if self._is_late(worker)]
            if not late:
                break
            await _first(*(worker.changed() for worker in late), timeout_s=left)
        await asyncio.gather(*(self._bring_up_to_date(worker) for worker in self._workers))

    def _is_late(self, worker: Child) -> bool:
        given = self._given.get(worker.name, self._generation)
        return worker.phase is Phase.STARTING and given != self._generation

    async def _bring_up_to_date(self, worker: Child) -> None:
        """Also for one that took an older configuration at its start and became ready after the swap."""
        if worker.phase is not Phase.READY:
            return
        try:
            if self._given.get(worker.name) != self._generation:
                await self._give(worker, self._config, self._generation)
            elif self._served.has(worker.name) != self._served.revision:
                await self._give_served(worker, self._served.whole(), self._indexes.places)
        except hub.HubError as error:
            log.error("worker did not reload", child=worker.name, error=error)

    def _transport_of(self, config: Config) -> Any:
        """Made once for all children: with many tenants that takes a while."""
        if self._transport is None or self._transport[0] is not config:
            self._transport = config, packed(config)
        return self._transport[1]

    async def _give(self, worker: Child, config: Config, generation: int) -> None:
        params = {
            "config": self._transport_of(config),
            "generation": generation,
            "tenant_indexes": self._indexes.places,
            "served": self._served.whole(),
        }
        revision = self._served.revision
        await self._call(worker.name, "reload", params)
        self._given[worker.name] = generation
        self._served.note(worker.name, revision)

    # --- the catalog's part ---------------------------------------------------

    async def _on_serve(self, caller: str, params: dict[str, Any]) -> dict[str, Any]:
        """The catalog has changed, so the control process says: to those who start later, and the workers."""
        if caller != "control":
            raise hub.HubError(f"{caller} does not follow the catalog")
        self._served.apply(params)
        new = self._indexes.of_served(params["tenants"], params["logins"], self._config)
        difference, revision = self._served.difference(params), self._served.revision
        ready = [
            worker
            for worker in self._workers
            if worker.phase is Phase.READY
            or (worker.phase is Phase.STARTING and self._served.hears(worker.name))
        ]
        late = [worker for worker in ready if self._served.has(worker.name) != revision - 1]
        await asyncio.gather(
            *(self._try_give_served(worker, difference, new) for worker in ready if worker not in late),
            *(self._try_give_served(worker, self._served.whole(), self._indexes.places) for worker in late),
        )
        return {"revision": revision}

    def _hears(self, worker: Child) -> bool:
        """Whether it takes what the catalog has changed."""
        begins = worker.phase is Phase.STARTING and self._served.hears(worker.name)
        return begins or worker.phase is Phase.READY

    def _on_catch_up(self, caller: str, params: dict[str, Any]) -> dict[str, Any]:
        """A worker begins to serve in a moment: what it has missed, and from now on it is told."""
        missed = self._served.begin(caller) != params["revision"]
        return {"served": self._served.whole(), "tenant_indexes": self._indexes.places} if missed else {}

    async def _try_give_served(self, worker: Child, served: dict[str, Any], places: dict[str, int]) -> None:
        try:
            await self._give_served(worker, served, places)
        except hub.HubError as error:
            # it is behind now, and gets all with the next change, or when it has started anew
            log.error("worker did not take the catalog's change", child=worker.name, error=error)

    async def _give_served(self, worker: Child, served: dict[str, Any], places: dict[str, int]) -> None:
        revision = self._served.revision
        params = {"served": served, "tenant_indexes": places, "revision": revision}
        await self._call(worker.name, "serve", params)
        self._served.note(worker.name, revision)

    async def _call(self, child: str, method: str, params: dict[str, Any]) -> Any:
        return await self._hub.call(child, method, params, RELOAD_TIMEOUT_S)

    async def _tell_control(self, config: Config) -> None:
        assert self._control is not None
        params = {"config": self._transport_of(config), "generation": self._generation}
        try:
            await self._call("control", "reload", params)
        except hub.HubError as error:
            log.error("control did not reload", error=error)

    async def _replace_control(self, http: list[Listener]) -> None:
        """What it listens at has changed, or whether it is needed."""
        if self._control is not None:
            await self._control.stop(grace_s=self._policy.exit_grace_s)
            self._control = None
        for listener in self._http if http is not self._http else ():
            listener.close()
        self._http = http
        if needs_control(self._config):
            self._start_control()

    # --- what children ask ----------------------------------------------------

    def _on_bootstrap(self, caller: str, params: dict[str, Any]) -> dict[str, Any]:
        if self._stop is not Stop.NO:
            raise hub.HubError("the proxy is stopping")
        answer: dict[str, Any] = {
            "config": self._transport_of(self._config),
            "config_generation": self._generation,
        }
        if caller == "control":
            answer["http_fds"] = [lis.sock.fileno() for lis in self._http]
            answer["ledger"] = self._ledger
            answer["usage"] = self._usage_kept
            answer["served"] = self._served.marks
            answer["boot"] = self._boot
            answer["usage_fd"] = self._usage.fd
            return answer
        child = self._worker_of(caller)
        self._given[caller] = self._generation
        self._served.note(caller)
        answer |= {
            "slot": child.worker,
            "incarnation": child.incarnation,
            "workers": len(self._workers),
            "listeners": [{"fd": lis.sock.fileno(), "kind": lis.kind} for lis in self._listeners],
            "mailboxes": [[rx.fileno(), tx.fileno()] for rx, tx in self._mailboxes],
            "shm_fd": self._counters.fd,
            "usage_fd": self._usage.fd,
            "tenant_indexes": self._indexes.places,
            "served": self._served.whole(),
            "revision": self._served.revision,
            "full": self._full,
            "paused": self._pauses.names,
        }
        return answer

    def _worker_of(self, caller: str) -> Child:
        for worker in self._workers:
            if worker.name == caller:
                return worker
        raise hub.HubError(f"{caller} is no worker")

    def _on_ready(self, caller: str, params: dict[str, Any]) -> dict[str, Any]:
        child = self._control if caller == "control" else self._worker_of(caller)
        if child is not None:
            child.set_ready()
            log.debug("child ready", child=caller, pid=child.pid)
            if child is not self._control:
                self._background(self._bring_up_to_date(child), "bring up to date")
        return {}

    async def _on_reload(self, caller: str, params: dict[str, Any]) -> dict[str, Any]:
        # Shielded: a caller that goes away must not leave half of the workers reloaded.
        return (await asyncio.shield(self._background(self.reload(), "reload"))).as_dict()

    def _on_places(self, caller: str, params: dict[str, Any]) -> dict[str, int]:
        """Where each tenant's usage is counted."""
        return self._indexes.of_tenants()

    def _on_keep_usage(self, caller: str, params: dict[str, Any]) -> dict[str, Any]:
        self._usage_kept = params["kept"]
        return {}

    async def _on_full(self, caller: str, params: dict[str, Any]) -> dict[str, Any]:
        """Tenants that have more than they may store: all of them."""
        self._full = params["tenants"]
        await self._hub.call_workers("full", params, RELOAD_TIMEOUT_S)
        return {}

    async def _on_pause(self, caller: str, params: dict[str, Any]) -> dict[str, Any]:
        answer = self._pauses.apply(params["step"], params)
        await self._hub.call_workers("pause", {"tenants": self._pauses.names}, RELOAD_TIMEOUT_S)
        return answer

    def _on_keep_ledger(self, caller: str, params: dict[str, Any]) -> dict[str, Any]:
        self._ledger = params.get("ledger")
        return {}

    async def _on_stats(self, caller: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        answers = await self._hub.call_workers("snapshot", {"what": ["stats"]}, STATS_TIMEOUT_S)
        living = {w.incarnation for w in self._workers if w.pid is not None}
        return self._stats.observe(
            time.monotonic(), answers, living, together=bool(params.get("together", False))
        )

    def _on_status(self, caller: str, params: dict[str, Any]) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "started_s": self._started_s,
            "config_generation": self._generation,
            "reloads": self._reloads,
            "stopping": self._stop is not Stop.NO,
            "paused": self._pauses.names,
            "listeners": [lis.address for lis in self._listeners],
            "workers": [{"slot": w.worker, **w.status()} for w in self._workers],
            "control": self._control.status() if self._control is not None else None,
        }


async def _first(*works: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> None:
    """Returns when one of them has ended, or the time has; the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _errors_of(error: ConfigError) -> list[Problem]:
    """Without the warnings, which nobody needs to mend before the file can be used."""
    return [problem for problem in error.problems if problem.severity == "error"]


def run(config_path: str | Path, *, pidfile: str | Path | None = None) -> int:
    """Serves until a signal says stop; returns the exit status (0 stopped as asked, 1 did not start)."""
    return serve(lambda: load_config(config_path), pidfile=pidfile)


def serve(
    load: Callable[[], Loaded],
    *,
    policy: RestartPolicy | None = None,
    pidfile: str | Path | None = None,
) -> int:
    """`run` with a loader of one's own; it is called now and at each reload."""
    obs_log.configure()
    # before anything secret is read, and any thread started
    nursery = Nursery.open()
    try:
        return _serve(load, policy, pidfile, nursery.start if nursery is not None else start_afresh)
    finally:
        if nursery is not None:
            nursery.close()


def _serve(
    load: Callable[[], Loaded],
    policy: RestartPolicy | None,
    pidfile: str | Path | None,
    start_process: Start,
) -> int:
    try:
        loaded = load()
    except ConfigError as error:
        for problem in _errors_of(error):
            log.error(str(problem))
        return 1
    config = loaded.config
    obs_log.configure(config.log.level, config.log.format)
    for warning in loaded.warnings:
        log.warning(str(warning))
    if pidfile is not None:
        try:
            Path(pidfile).write_text(f"{os.getpid()}\n")
        except OSError as error:
            log.error("could not write the pid file", path=pidfile, error=error.strerror)
            return 1

    async def main() -> int:
        supervisor = Supervisor(load, config, policy=policy, start_process=start_process)
        return await supervisor.run()

    try:
        return asyncio.run(main())
    finally:
        if pidfile is not None:
            Path(pidfile).unlink(missing_ok=True)
