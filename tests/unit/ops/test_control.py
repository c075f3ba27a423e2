"""The control process beside stub workers: what HTTP answers, and what survives its death."""

import json
import os
import signal
import time
import urllib.error
import urllib.request

import pytest

from tests.pg_server import free_port

from .fix_supervisor import wait_dead


class Site:
    def __init__(self, port):
        self.port = port

    def get(self, path, **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()

    def metrics(self):
        status, _, text = self.get("/metrics")
        assert status == 200, text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name.removeprefix("tenant_proxy_"): float(value) for name, _, value in lines}


@pytest.fixture
def site():
    return Site(free_port())


@pytest.fixture
def proxy(start, site):
    return start(metrics={"port": site.port})


def test_one_endpoint_has_the_metrics_of_all_workers(proxy, site):
    clients = [proxy.connect_to(0), proxy.connect_to(1)]
    for client in clients:
        client.call("supervisor", "status")
    status, headers, text = site.get("/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    metrics = site.metrics()
    assert metrics['worker_up{worker="0"}'] == metrics['worker_up{worker="1"}'] == 1
    assert metrics['worker_clients{worker="0"}'] >= 1
    assert metrics['queries_total{tenant="acme"}'] >= 2
    assert "# HELP tenant_proxy_queries_total Queries." in text
    assert "# TYPE tenant_proxy_query_seconds histogram" in text


def test_the_process_is_healthy_and_the_proxy_is_ready(proxy, site):
    assert site.get("/healthz")[0] == 200
    status, _, text = site.get("/readyz")
    assert status == 200
    assert json.loads(text) == {"ready": True, "reasons": [], "workers_ready": 2, "workers": 2}


def test_it_is_not_ready_without_a_worker(start, site):
    proxy = start(metrics={"port": site.port}, env={"STUB_HANG": "1"}, wait=False)
    end = time.monotonic() + 10
    while True:
        try:
            status, _, text = site.get("/readyz")
            break
        except OSError:
            assert time.monotonic() < end, proxy.log
    assert status == 503
    assert json.loads(text)["reasons"] == ["no worker is ready"]
    assert site.get("/healthz")[0] == 200


def test_it_is_not_ready_while_draining_and_answers_until_the_end(proxy, site):
    client = proxy.connect_to(0)
    assert site.get("/readyz")[0] == 200
    proxy.signal(signal.SIGTERM)
    proxy.wait_log("supervisor: draining")
    status, _, text = site.get("/readyz")
    assert status == 503
    assert json.loads(text)["reasons"] == ["the proxy is shutting down"]
    assert site.metrics()['worker_draining{worker="0"}'] == 1
    client.close()
    assert proxy.wait() == 0


def test_other_paths_are_not_there(proxy, site):
    assert site.get("/")[0] == 404
    assert site.get("/docs")[0] == 404


def test_openmetrics_when_asked_for(proxy, site):
    _, headers, text = site.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_without_metrics_there_is_no_control_process(start):
    assert start().status()["control"] is None


def test_a_killed_control_process_comes_back_without_harm(proxy, site):
    client = proxy.connect()
    site.metrics()
    pid = proxy.status()["control"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_dead(pid)
    # the port is the supervisor's: this waits in its queue
    assert site.metrics()["control_restarts_total"] == 1
    assert client.is_open()
    assert proxy.status()["control"]["pid"] != pid


def test_no_counter_falls_when_a_worker_and_then_the_control_process_die(proxy, site):
    name = 'queries_total{tenant="acme"}'
    zero, one = proxy.connect_to(0), proxy.connect_to(1)
    for _ in range(5):
        zero.call("supervisor", "status")
        one.call("supervisor", "status")
    before = site.metrics()[name]
    os.kill(zero.pid, signal.SIGKILL)
    proxy.wait_log("child=worker:0 exit=")
    proxy.connect_to(0)
    after_worker = site.metrics()[name]
    assert after_worker >= before
    pid = proxy.status()["control"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_dead(pid)
    assert site.metrics()[name] >= after_worker


def test_the_bound_on_labels_follows_a_reload(proxy, site):
    proxy.connect().call("supervisor", "status")
    assert 'queries_total{tenant="acme"}' in site.metrics()
    proxy.write(proxy.config | {"metrics": {"port": site.port, "max_tenants": 0}})
    proxy.connect().call("supervisor", "reload")
    # who is in stays in
    assert 'queries_total{tenant="acme"}' in site.metrics()
