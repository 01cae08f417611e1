"""Metrics: Prometheus' text, and a server that no scraper can hold up."""

import contextlib
import socket
import stat
import threading
from pathlib import Path

import pytest

from kmstool import limits
from kmstool.endpoint import TcpAddress, UnixAddress, VsockAddress
from kmstool.errors import SettingError, TransportError
from kmstool.parent.journal import Journal, LogLine
from kmstool.parent.metrics import Counter, Histogram, Metrics
from kmstool.parent.metrics_server import MetricsServer


def test_the_text_is_prometheus() -> None:
    metrics = Metrics()
    metrics.counter("x_total", "Things.", route="a", way="there").value += 3
    metrics.counter("x_total", "Things.", route="b", way="there").value += 1
    metrics.gauge("open", "Now.").value = 2
    assert metrics.render() == (
        "# HELP x_total Things.\n"
        "# TYPE x_total counter\n"
        'x_total{route="a",way="there"} 3\n'
        'x_total{route="b",way="there"} 1\n'
        "# HELP open Now.\n"
        "# TYPE open gauge\n"
        "open 2\n"
    )


def test_a_histogram_counts_upwards_with_its_bounds_included() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)
    metrics = Metrics()
    series = metrics.histogram("h", "Seconds.", route="a")
    for value in (0.0005, 0.3, 100.0):
        series.observe(value)
    assert histogram.counts == [2, 1, 1]
    lines = metrics.render().splitlines()
    assert 'h_bucket{route="a",le="0.0005"} 1' in lines
    assert 'h_bucket{route="a",le="0.5"} 2' in lines
    assert 'h_bucket{route="a",le="5"} 2' in lines
    assert 'h_bucket{route="a",le="+Inf"} 3' in lines
    assert 'h_sum{route="a"} 100.300500' in lines
    assert 'h_count{route="a"} 3' in lines


def test_a_label_cannot_break_out_of_its_quotes() -> None:
    metrics = Metrics()
    metrics.counter("x_total", "Things.", path='a"b\\c\nd')
    assert metrics.render().splitlines()[2] == 'x_total{path="a\\"b\\\\c\\nd"} 0'


def test_the_same_labels_are_the_same_series() -> None:
    metrics = Metrics()
    one = metrics.counter("x_total", "Things.", route="a")
    assert metrics.counter("x_total", "Things.", route="a") is one


@pytest.fixture
def address(tmp_path: Path) -> UnixAddress:
    return UnixAddress(str(tmp_path / "metrics.sock"))


def connect(address: UnixAddress) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(address.path)
    return sock


def ask(address: UnixAddress, request: bytes) -> bytes:
    with connect(address) as sock:
        sock.sendall(request)
        answer = b""
        while piece := sock.recv(65_536):
            answer += piece
        return answer


def test_a_scraper_gets_them(address: UnixAddress) -> None:
    metrics = Metrics()
    metrics.counter("x_total", "Things.").value = 5
    with MetricsServer(address, metrics) as server:
        assert server.alive
        assert stat.S_IMODE(Path(address.path).stat().st_mode) == 0o600
        head, _, body = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").partition(
            b"\r\n\r\n"
        )
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain; version=0.0.4" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.decode() == metrics.render()
    assert not Path(address.path).exists()
    assert not server.alive


def test_a_large_answer_arrives_whole(address: UnixAddress) -> None:
    metrics = Metrics()
    for number in range(20_000):
        metrics.counter("x_total", "Things.", number=str(number))
    with MetricsServer(address, metrics):
        answer = ask(address, b"GET / HTTP/1.0\r\n\r\n")
    assert answer.partition(b"\r\n\r\n")[2].decode() == metrics.render()


def test_another_method_is_refused(address: UnixAddress) -> None:
    with MetricsServer(address, Metrics()):
        assert ask(address, b"POST / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")


def test_a_request_has_a_time(address: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METRICS_SECONDS", 0.3)
    with MetricsServer(address, Metrics()), connect(address) as silent:
        assert silent.recv(1) == b""


def test_a_request_has_a_size(address: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METRICS_SECONDS", 600.0)
    with MetricsServer(address, Metrics()), connect(address) as long:
        with contextlib.suppress(BrokenPipeError):
            for _ in range(limits.METRICS_REQUEST_MAX + 1):
                long.send(b"x")
        with contextlib.suppress(ConnectionResetError):
            assert long.recv(1) == b""


def test_no_scraper_holds_up_another(address: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METRICS_SECONDS", 600.0)
    metrics = Metrics()
    with MetricsServer(address, metrics):
        silent = [connect(address) for _ in range(limits.METRICS_CONNECTIONS_MAX - 1)]
        assert ask(address, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")
        silent.append(connect(address))
        with connect(address) as one_too_many:
            assert one_too_many.recv(1) == b""
        for sock in silent:
            sock.close()


@pytest.mark.parametrize("address", [VsockAddress(0xFFFF_FFFF, 9), TcpAddress("0.0.0.0", 9)])
def test_they_are_served_to_this_machine_only(address: VsockAddress | TcpAddress) -> None:
    with pytest.raises(SettingError):
        MetricsServer(address, Metrics())


def test_an_address_that_cannot_be_listened_on(tmp_path: Path) -> None:
    with pytest.raises(TransportError):
        MetricsServer(UnixAddress(str(tmp_path / "no" / "x")), Metrics())


def test_a_journal_writes_in_order_and_at_its_end_what_is_left() -> None:
    lines: list[str] = []
    journal = Journal(lines.append, Counter())
    for number in range(1_000):
        journal(str(number))
    journal.close()
    assert lines == [str(number) for number in range(1_000)]


def test_a_journal_does_not_wait_for_ever_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORWARD_LOG_SECONDS", 0.1)
    stuck = threading.Event()

    def report(_line: str) -> None:
        stuck.wait(20)

    journal = Journal(report, Counter())
    journal("x")
    journal.close()
    stuck.set()


def test_a_journal_survives_a_report_that_fails() -> None:
    lines: list[str] = []

    def report(line: str) -> None:
        if line == "bad":
            raise OSError("disk full")
        lines.append(line)

    journal = Journal(report, Counter())
    journal("bad")
    journal("good")
    journal.close()
    assert lines == ["good"]


def test_a_log_line_is_a_string_with_fields() -> None:
    line = LogLine("text", {"cid": 16})
    assert (line, line.fields) == ("text", {"cid": 16})
