"""A service from its name to its result: what ``pimsim serve`` and ``pimsim.serve`` do."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

from pimsim import __version__
from pimsim.config.content import folder_sha256, machine_content, service_content
from pimsim.config.errors import InputError
from pimsim.config.kept import keep, kept_file, read_kept
from pimsim.config.paths import given_path
from pimsim.config.service import MOST_BLOCKS, ServiceConfig
from pimsim.config.service_loader import ResolvedService, load_service
from pimsim.config.traffic import MOST_REQUESTS
from pimsim.config.units import parse_time
from pimsim.interrupts import held
from pimsim.reproductions import departures
from pimsim.result.cost import hour_cost
from pimsim.result.service import ServiceResult, build_service_result
from pimsim.result.service_energy import service_energy
from pimsim.result.service_rows import StepsFile, write_requests
from pimsim.result.service_state import go_on, write_state
from pimsim.result.service_types import NO_ENERGY, ServiceEnergy, ServiceOrigin
from pimsim.result.store import check_writable, write_folder
from pimsim.service_pools import decode_pool, given_step_time
from pimsim.serving.ending import Speculation
from pimsim.serving.routers import load_router
from pimsim.serving.schedulers import load_scheduler
from pimsim.serving.service import Fleet, Service
from pimsim.serving.state import state_of
from pimsim.serving.step_log import StepLog
from pimsim.serving.step_times import ServedMachine, StepTime
from pimsim.serving.step_times.interpolated import MOST_FINENESS, Interpolated
from pimsim.serving.step_times.simulated import Simulated
from pimsim.workload.batch import model_hashes
from pimsim.workload.cards import load_card
from pimsim.workload.load_traffic import LoadedTraffic, load_traffic
from pimsim.workload.traffic import Traffic

__all__ = ["ServiceProgress", "ServiceRun", "prepare", "serve", "stop_time"]

PathLike = str | os.PathLike[str]
_LOOK_EVERY = 512
"""Moments between two looks at the clock."""
_TOLD_S = 0.2
"""Between two calls of ``on_progress``."""


@dataclass(frozen=True)
class ServiceProgress:
    """How far a service is."""

    time_ps: int
    """Simulated."""
    finished: int
    """Requests that have ended."""
    requests: int
    """Of the service, those to come included."""
    left_s: float | None
    """Seconds of the wall clock until all is done, if requests go on ending as they have; None:
    none has ended yet."""


class ServiceRun:
    """A service that can be run, interrupted, and asked what it came to so far.

    Parameters
    ----------
    resolved
        Its config.
    out
        Folder that ``save`` writes, or None.
    resume
        Go on from what an earlier run has left there.

    Raises
    ------
    InputError
        Where the config asks for what cannot be.
    """

    def __init__(
        self, resolved: ResolvedService, out: PathLike | None = None, resume: bool = False
    ) -> None:
        config = resolved.config
        self._resolved = resolved
        self._begin = time.perf_counter()
        loaded = load_traffic(config.requests, config.seed)
        _check_context(config, loaded.traffic)
        self._machine = _machine(config, loaded.traffic)
        if self._machine is not None:
            _check_length(self._machine.model, self._machine.max_context, loaded.traffic)
        self._replica_hour = _replica_hour(config, self._machine)
        self._blocks = _blocks(config, self._machine)
        self._traffic = loaded.traffic
        self._anchors = _Anchors(config, self._machine)
        self._start(0)
        self._content = service_content(
            config.model_dump(mode="json"), _inputs(config, loaded), self._machine is not None
        )
        self._format = loaded.format
        self._out = None if out is None else given_path(out)
        self._scratch: str | None = None
        self._steps: StepsFile | None = None
        if self._out is not None:
            check_writable(self._out)
            self._scratch = tempfile.mkdtemp(prefix="pimsim.")
        self._begin_log()
        if resume:
            self._go_on()

    def _start(self, fineness: int) -> None:
        """From the beginning, with rungs between anchors that are halved so often."""
        config = self._resolved.config
        self._step_time = _step_time(config, self._machine, fineness, self._anchors.known)
        self.service = Service(self._traffic, _fleet(config, self._step_time, self._blocks))

    def _begin_log(self) -> None:
        """Of steps, and of their rows in the folder that is written."""
        if self._steps is not None:
            self._steps.close()
        if self._scratch is not None:
            self._steps = StepsFile(Path(self._scratch) / "steps.parquet")
        self.log = StepLog(self._steps)

    def __enter__(self) -> ServiceRun:
        return self

    def __exit__(self, *_: object) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _go_on(self) -> None:
        if self._out is None or self._steps is None:
            raise InputError("--resume goes on from what lies in --out, which is not given")
        if self._machine is not None:
            raise InputError("--resume: a service of a machine begins anew; steps are remembered")
        try:
            self._begin -= go_on(self._out, self._content, self.service, self.log)
            steps = self._out / "steps.parquet"
            if self.log.steps:
                self._steps.copy(steps)
        except BaseException:
            self.__exit__()
            raise

    def run(
        self, until_ps: int | None = None, until_finished: int | None = None,
        on_progress: Callable[[ServiceProgress], None] | None = None,
    ) -> None:  # fmt: skip
        """Serve until all is done, or until a time or a number of requests that have ended.

        A signal that stops the program does so between two moments, so that what is known then can
        be gone on from. Where interpolated steps are off by more than they may be, all over again
        with more anchors.
        """
        tell = _Teller(on_progress)
        while True:
            with held() as signals:

                def told(service: Service, signals: Sequence[object] = signals) -> bool:
                    tell(service)
                    return bool(signals)

                try:
                    self.service.run([self.log], until_ps, until_finished, told)
                finally:
                    self._anchors.keep()
            steps, limit = self._step_time, self._resolved.config.steps.max_error
            if not isinstance(steps, Interpolated) or limit is None:
                return
            if steps.errors.bound <= limit or steps.fineness >= MOST_FINENESS:
                return
            self._start(steps.fineness + 1)
            self._begin_log()

    def result(self) -> ServiceResult:
        """What it came to so far."""
        config = self._resolved.config
        origin: ServiceOrigin = {
            "scheduler": config.scheduler.name,
            "fidelity": self._fidelity(),
            "provenance": {
                "pimsim": __version__, "content_sha256": self._content, "seed": config.seed,
                "requests_format": self._format,
                "wall_s": round(self._wall_s, 3),
            },
            "warnings": _warnings(config, self._step_time, self._machine),
        }  # fmt: skip
        self._anchors.keep()  # the sample is simulated when somebody asks for its errors
        return build_service_result(
            self.service,
            self.log,
            config.name,
            config.slo,
            origin,
            self._energy(),
            config.prices,
            self._replica_hour,
        )

    def _fidelity(self) -> dict[str, object]:
        """How step times are known."""
        given = self._resolved.config.step_time
        if self._machine is None or not isinstance(self._step_time, Simulated):
            return {"step_time": "linear" if given and given.linear is not None else "profile"}
        return {**self._step_time.describe(), "machine": self._machine.fidelity}

    def _energy(self) -> ServiceEnergy:
        """Of all replicas of a machine, from the first arrival's moment 0 to now, idle time too."""
        if not isinstance(self._step_time, Simulated):
            return NO_ENERGY
        return service_energy(self.service, self.log, self._step_time)

    @property
    def _wall_s(self) -> float:
        """Of this run, and of the earlier ones that it goes on from."""
        return time.perf_counter() - self._begin

    def save(self, result: ServiceResult) -> bool:
        """Write config, result, and a row for each request and step, where ``out`` says; of a
        service that has not ended also what it goes on from.

        Returns
        -------
        bool
            Whether it can go on from there.
        """
        if self._out is None or self._scratch is None or self._steps is None:
            return False
        state = None
        if not self.service.done and self._machine is None:
            with suppress(InputError):  # a plugin's that keeps what cannot be written
                state = state_of(self.service, self.log)
        self._steps.close()
        steps = Path(self._scratch) / "steps.parquet"

        def fill(folder: Path) -> None:
            write_requests(result.requests, folder / "requests.parquet")
            if steps.exists():
                shutil.copyfile(steps, folder / "steps.parquet")
            if state is not None:
                write_state(state, self._content, self._wall_s, folder)

        text = self._resolved.to_yaml(folder=self._out)
        write_folder(self._out, text, result.to_dict(), fill)
        return state is not None


class _Teller:
    """Calls ``on_progress`` now and then."""

    def __init__(self, on_progress: Callable[[ServiceProgress], None] | None) -> None:
        self._tell = on_progress
        self._begin = self._told = time.monotonic()
        self._moments = 0

    def __call__(self, service: Service) -> None:
        self._moments += 1
        if self._tell is None or self._moments % _LOOK_EVERY:
            return
        now = time.monotonic()
        if now - self._told < _TOLD_S:
            return
        self._told = now
        done, of = service.finished, len(service.requests)
        left = (now - self._begin) * (of - done) / done if done else None
        self._tell(ServiceProgress(service.now_ps, done, of, left))


def serve(
    name_or_path: PathLike, *, overrides: Sequence[str] = (), out: PathLike | None = None,
    max_time: str | None = None, max_requests: int | None = None, resume: bool = False,
) -> ServiceResult:  # fmt: skip
    """Serve requests.

    Parameters
    ----------
    name_or_path
        A preset of ``configs/service``, or a service's YAML.
    overrides
        Other values, as ``"scheduler.max_num_seqs=64"``, in order.
    out
        A folder for config, result, requests and steps.
    max_time
        Simulated time to stop at, with its unit (``"60s"``).
    max_requests
        Stop when so many have ended.
    resume
        Go on from what an earlier run, which was stopped, has left in ``out``.

    Returns
    -------
    ServiceResult
        Its figures, and its requests as a table.

    Raises
    ------
    InputError
        For wrong input, in one line.

    Examples
    --------
    >>> import pimsim
    >>> result = pimsim.serve("chat", max_requests=10)
    >>> len(result.table()) >= 10, result.to_dict()["latency_s"]["ttft"]["p50"] > 0
    (True, True)
    """
    until_ps = stop_time(max_time)
    _check_count(max_requests)
    with ServiceRun(prepare(name_or_path, overrides), out, resume) as running:
        running.run(until_ps, max_requests)
        result = running.result()
        running.save(result)
    return result


def prepare(name_or_path: PathLike, overrides: Sequence[str] = ()) -> ResolvedService:
    """The config of a service: a preset's name or a YAML path, with overrides.

    Parameters
    ----------
    name_or_path
        A preset, or the path of a service's YAML.
    overrides
        Values, as ``--set`` takes them; the last of a key counts.

    Raises
    ------
    InputError
        With file, line and key.
    """
    return load_service(os.fspath(name_or_path), overrides)


def stop_time(text: str | None) -> int | None:
    """Picoseconds of ``--max-time``.

    Parameters
    ----------
    text
        A time with its unit (``30s``); None: none was given.

    Raises
    ------
    InputError
        For what is no time.
    """
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise InputError(f"--max-time: {error}") from None


def _check_count(max_requests: int | None) -> None:
    """Raises ``InputError`` for a number of requests that the command line refuses, too."""
    if max_requests is None:
        return
    if type(max_requests) is not int or not 1 <= max_requests <= MOST_REQUESTS:
        raise InputError(
            f"max_requests: found {max_requests!r}; allowed: a whole number of 1 to "
            f"{MOST_REQUESTS:,}"
        )


def _fleet(config: ServiceConfig, step_time: StepTime, blocks: int) -> Fleet:
    return Fleet(
        load_scheduler(config.scheduler.name), config.scheduler, step_time,
        blocks, config.cache.block_tokens, load_router(config.replicas.router),
        config.replicas.count, config.replicas.stages,
        _speculation(config),
        None if config.decode is None
        else decode_pool(config.decode, config.replicas.count, step_time),
    )  # fmt: skip


def _speculation(config: ServiceConfig) -> Speculation:
    if config.speculation is None:
        return Speculation()
    from pimsim.serving.guesses import guesses

    return guesses(config.speculation, config.seed)


class _Anchors:
    """Anchors of earlier services of the same machine, and steps of their samples, kept by the
    content of what they are."""

    def __init__(self, config: ServiceConfig, machine: ServedMachine | None) -> None:
        self.known: dict[str, list[float]] = {}
        self._path: Path | None = None
        if machine is None or not config.interpolated or config.machine is None:
            return
        values = machine.config.model_dump(mode="json", exclude={"name", "description"})
        content = machine_content(values, model_hashes(config.machine.workload))
        self._path = kept_file(f"steps-{content[:24]}.json")
        self.known = json.loads(read_kept(self._path) or "{}")
        self._before = len(self.known)

    def keep(self) -> None:
        """Write what is new."""
        if self._path is not None and len(self.known) > self._before:
            keep(self._path, json.dumps(self.known))
            self._before = len(self.known)


def _machine(config: ServiceConfig, traffic: Traffic) -> ServedMachine | None:
    if config.machine is None:
        return None  # a given step time needs no engine
    from pimsim.served_model import served_machine

    return served_machine(config.machine, int((traffic.prompt + traffic.output).max()))


def _replica_hour(config: ServiceConfig, machine: ServedMachine | None) -> float:
    """What a replica costs for an hour; 0 without prices."""
    if config.prices is None:
        return 0.0
    known = {} if machine is None else machine.priced_figures()
    found = hour_cost(config.prices, lambda name: known.get(name, nan))
    if isnan(found):
        raise InputError(
            "prices.logic_mm2: the area of this machine's logic is not known; prices without it, "
            "and with device, tell what a replica costs"
        )
    return found


def _step_time(
    config: ServiceConfig,
    machine: ServedMachine | None,
    fineness: int,
    known: dict[str, list[float]],
) -> StepTime:
    given = config.step_time
    if machine is not None:
        if config.replicas.stages != machine.stages:
            raise InputError(
                f"replicas.stages is {config.replicas.stages}; the machine's pipeline has "
                f"{machine.stages} (machine.parallel.pp, else the model card's)"
            )
        if config.decode is not None and config.decode.stages != machine.stages:
            raise InputError(
                f"decode.stages is {config.decode.stages}; the machine's pipeline has "
                f"{machine.stages}"
            )
        if config.interpolated:
            return Interpolated(machine, config.steps.samples, config.seed, fineness, known)
        return Simulated(machine)
    assert given is not None
    return given_step_time(given)


def _blocks(config: ServiceConfig, machine: ServedMachine | None) -> int:
    """Of the KV cache. Raises ``InputError`` where the machine has no room for as many."""
    asked, size = config.cache.blocks, config.cache.block_tokens
    if machine is None:
        assert asked is not None
        return asked
    held = machine.tokens(size) // size
    if not held:
        raise InputError(
            f"the machine has no room for a block of {size} tokens beside the weights of model "
            f"{machine.model} ({machine.more}, cache.block_tokens)"
        )
    if asked is not None and asked > held:
        raise InputError(
            f"cache.blocks is {asked:,}; the machine holds {held:,} of {size} tokens beside the "
            f"weights of model {machine.model}"
        )
    return min(held, MOST_BLOCKS) if asked is None else asked


def _inputs(config: ServiceConfig, loaded: LoadedTraffic) -> dict[str, str]:
    """Hashes of the files that the config names, by what they are."""
    found = {"requests": loaded.sha256}
    if config.machine is not None:
        found |= model_hashes(config.machine.workload)
    if config.step_time is not None and config.step_time.profile is not None:
        folder = given_path(config.step_time.profile.folder)
        found["profile"] = folder_sha256(folder, (".csv",))
    if config.decode is not None and config.decode.step_time is not None:
        profile = config.decode.step_time.profile
        if profile is not None:
            found["decode_profile"] = folder_sha256(given_path(profile.folder), (".csv",))
    return found


def _check_context(config: ServiceConfig, traffic: Traffic) -> None:
    """Raises ``InputError`` for a request that is longer than the model's context."""
    if config.model is None:
        return
    _check_length(config.model, load_card(config.model).max_context, traffic)


def _check_length(model: str, limit: int, traffic: Traffic) -> None:
    """Raises ``InputError`` for a request of more than ``limit`` tokens."""
    tokens = traffic.prompt + traffic.output
    row = int(tokens.argmax())
    if tokens[row] > limit:
        raise InputError(
            f"{traffic.where(row)}: {traffic.prompt[row]} + {traffic.output[row]} tokens; the "
            f"context of model {model} is {limit}"
        )


def _warnings(
    config: ServiceConfig, step_time: StepTime, machine: ServedMachine | None
) -> list[str]:
    quirks, limit = departures(config), config.steps.max_error
    found = [] if machine is None else list(machine.notes)
    if quirks:
        found.append(f"quirks of a published artifact are on: {', '.join(quirks)}")
    if limit is not None and isinstance(step_time, Interpolated):
        errors = step_time.errors
        if errors.bound > limit:
            found.append(
                f"interpolated steps may be off by {errors.bound:.2%}, however many are simulated; "
                f"steps.max_error is {limit:.2%}"
            )
    return found
