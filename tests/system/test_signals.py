"""SIGTERM and SIGINT: who handles them, when the process ends immediately, and interrupted data preparation."""

import gc
import os
import signal
import threading
import time
from unittest import mock

import pytest

from seqlab.cli import main
from seqlab.codecs import sentencepiece
from seqlab.data.records import PreparedData
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.laws.training import tiny_experiment
from seqlab.system.errors import SeqlabError, Stopped
from seqlab.system.signals import STOP_SIGNALS, listen_for_stop, record_signals
from seqlab.training import train as train_module
from seqlab.training.train import train


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def handlers() -> list:
    return [signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGALRM)]


def test_no_module_has_changed_what_a_closed_pipe_does():
    """Python ignores SIGPIPE. Its default action would end a process of the tests silently."""
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_is_noted_and_the_second_ends(number):
    with listen_for_stop() as stop_request, stop_request.deferral():
        assert not stop_request.requested
        send(number)
        assert stop_request.requested
        with pytest.raises(Stopped):
            send()
    with listen_for_stop(), pytest.raises(Stopped):
        send(number)


def test_impatience_within_patience():
    """An interruptible block does not start after a stop request, and deferral is restored after it."""
    with listen_for_stop() as stop_request, stop_request.deferral():
        with stop_request.deferral(False):
            pass
        send()
        with stop_request.deferral(True):
            pass
        entered = []
        with pytest.raises(Stopped), stop_request.deferral(False):
            entered.append(1)
        assert not entered
        assert stop_request.deferred


def test_handlers_are_back_afterwards():
    old_handlers = handlers()
    with pytest.raises(SeqlabError), listen_for_stop():
        assert handlers() != old_handlers
        raise SeqlabError("whatever")
    assert handlers() == old_handlers


def test_in_another_thread_nothing_is_heard_and_nothing_breaks():
    old_handlers, results = handlers(), []

    def listen():
        with listen_for_stop() as stop_request, stop_request.deferral(), stop_request.deferral(False):
            results.append((stop_request.requested, handlers() == old_handlers))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert results == [(False, True)]


def test_no_handler_of_errors_keeps_the_end_from_coming():
    with pytest.raises(Stopped), listen_for_stop():
        try:
            send()
        except Exception:
            raise AssertionError("Stopped was caught as an error") from None


def counting(read, at):
    """Returns a `read` that sends a signal at example number `at`, counted over all calls."""
    count = [0]

    def counted(examples):
        for example in examples:
            count[0] += 1
            if count[0] == at:
                send()
            yield example

    def read_and_send(*arguments, **options):
        result = read(*arguments, **options)
        if isinstance(result, dict):
            return {name: counted(examples) for name, examples in result.items()}
        return counted(result)

    return read_and_send


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [(CldrPhrases, "splits", 30), (PreparedData, "read", 1), (PreparedData, "read", 40), (PreparedData, "read", 100)],
    ids=["preparation", "columns", "tokenizer", "ids"],
)
def test_while_data_is_prepared(tmp_path, owner, name, at):
    """No partial files and no run are left, and the same call then completes."""
    old_handlers = handlers()
    contexts = []
    with mock.patch.object(train_module, "run_training", contexts.append):
        with mock.patch.object(owner, name, counting(getattr(owner, name), at)), pytest.raises(Stopped):
            train(tiny_experiment(), tmp_path / "run", tmp_path / "data", say=lambda line: None)
        assert handlers() == old_handlers
        assert not (tmp_path / "run").exists()
        assert not list(tmp_path.rglob("*.part"))
        assert not contexts
        train(tiny_experiment(), tmp_path / "run", tmp_path / "data", say=lambda line: None)
    assert len(contexts) == 1


def test_a_broken_text_is_not_blamed_on_the_tokenizer():
    def texts():
        yield "a"
        raise SeqlabError("line 2: what is this?")

    with pytest.raises(SeqlabError, match="^line 2: what is this"):
        sentencepiece.train_sentencepiece(texts(), tiny_experiment().text)


def test_the_command_says_try_again(capsys):
    stopped = mock.patch.object(main, "run_command", side_effect=Stopped("stopped at step 7", agreed=True))
    with stopped, pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 75
    assert capsys.readouterr().err == "seqlab: stopped at step 7\n"


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_what_has_been_noted_is_found(number):
    """Early signals are recorded, and raise nothing before or after the block that handles them."""
    old_handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        with mock.patch("atexit.register") as at_exit:
            record_signals()
        assert [call.args for call in at_exit.call_args_list] == [
            (signal.signal, n, signal.SIG_IGN) for n in STOP_SIGNALS
        ]
        with listen_for_stop(), listen_for_stop():
            pass
        send(number)
        send(number)
        entered = []
        with pytest.raises(Stopped, match="run the same command to resume"), listen_for_stop():
            entered.append(1)
        assert not entered
        send(number)
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)


def test_only_one_end_is_on_its_way():
    """Further signals do not interrupt the cleanup."""
    cleared = []
    with pytest.raises(Stopped), listen_for_stop():
        try:
            send()
        finally:
            send()
            cleared.append(1)
    assert cleared


def test_raised_where_python_drops_it_and_raised_anew(capsys):
    """Tests garbage collection, whose callbacks cannot raise. Other dropped exceptions are reported as usual."""

    def callback(phase, info):
        if phase == "start" and not phases:
            phases.append(phase)
            send()

    class Other:
        def __del__(self):
            raise ValueError("quite another")

    phases, unraisables = [], []
    gc.freeze()  # else finalizers of other tests, which may drop exceptions silently, run in this collection
    gc.callbacks.append(callback)
    try:
        with mock.patch("sys.unraisablehook", unraisables.append):
            with pytest.raises(Stopped), listen_for_stop():
                Other()
                assert [str(unraisable.exc_value) for unraisable in unraisables] == ["quite another"]
                gc.collect()
                time.sleep(60.0)
                raise AssertionError("Stopped was not raised")
            assert len(unraisables) == 1
    finally:
        gc.callbacks.remove(callback)
        gc.unfreeze()
    assert phases
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
