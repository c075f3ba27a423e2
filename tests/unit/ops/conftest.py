import pytest

from .fix_supervisor import RunningSupervisor


@pytest.fixture
def start(tmp_path, warm):
    """start(**config, env=…) -> a supervisor whose workers are ready, unless wait=False."""
    running = []

    def start(*, wait=True, **options):
        supervisor = RunningSupervisor(tmp_path, warm, **options)
        running.append(supervisor)
        if wait:
            supervisor.wait_log("supervisor: ready ")
        return supervisor

    yield start
    for supervisor in running:
        supervisor.stop()
