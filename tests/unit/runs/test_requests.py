"""Signals to a run are recorded and acted on between steps; the second one stops it at once."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from percasym.runs.requests import Interrupted, Requests, Stopped, signal_handler

INT, TERM, USR1 = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1


def test_a_signal_is_kept_until_the_run_takes_it() -> None:
    requests = Requests()
    with signal_handler(requests.handle):
        os.kill(os.getpid(), TERM)
        assert requests.take() == (0, 1, 0)
        assert requests.take() == (0, 1, 0), "a stop is not forgotten"
    assert requests.stop == TERM


def test_a_request_for_a_checkpoint_is_taken_once() -> None:
    requests = Requests()
    with signal_handler(requests.handle):
        os.kill(os.getpid(), USR1)
        os.kill(os.getpid(), USR1)
    assert requests.take() == (0, 0, 1)
    assert requests.take() == (0, 0, 0)
    assert not requests.stop


@pytest.mark.parametrize(("first", "second", "code"), [(INT, INT, 130), (INT, TERM, 143), (TERM, INT, 130)])
def test_the_second_signal_that_stops_stops_at_once(first: int, second: int, code: int) -> None:
    requests = Requests()
    with signal_handler(requests.handle):
        os.kill(os.getpid(), first)
        with pytest.raises(Interrupted) as stop:
            os.kill(os.getpid(), second)
    assert stop.value.code == code
    assert not isinstance(stop.value, Stopped), "nothing is in order"
    assert requests.stop == first


def test_the_earlier_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in (INT, TERM, USR1)]
    with pytest.raises(ZeroDivisionError), signal_handler(Requests().handle):
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (INT, TERM, USR1)] == before


def test_in_a_thread_no_handler_is_installed() -> None:
    def listen() -> object:
        with signal_handler(Requests().handle):
            return signal.getsignal(TERM)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(listen).result() == signal.getsignal(TERM)
