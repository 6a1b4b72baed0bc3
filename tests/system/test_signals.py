"""SIGTERM and SIGINT: what hears them, when it ends on the spot, and what is left where data was being prepared."""

import gc
import os
import signal
import threading
import time
from unittest import mock

import pytest

from seqlab.cli import main
from seqlab.data import vocabulary
from seqlab.data.records import Prepared
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.laws.training import tiny_experiment
from seqlab.system.errors import SeqlabError, Stopped
from seqlab.system.signals import BOTH, note_signals, wish_to_stop
from seqlab.training import train as train_module
from seqlab.training.train import train


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def handlers() -> list:
    return [signal.getsignal(number) for number in (*BOTH, signal.SIGALRM)]


@pytest.mark.parametrize("number", BOTH)
def test_the_first_is_noted_and_the_second_ends(number):
    with wish_to_stop() as wish, wish.patience():
        assert not wish.asked
        send(number)
        assert wish.asked
        with pytest.raises(Stopped):
            send()
    with wish_to_stop(), pytest.raises(Stopped):
        send(number)


def test_impatience_within_patience():
    """What may be cut short is not begun where the end has been asked for; afterwards patience is back."""
    with wish_to_stop() as wish, wish.patience():
        with wish.patience(False):
            pass
        send()
        with wish.patience(True):
            pass
        begun = []
        with pytest.raises(Stopped), wish.patience(False):
            begun.append(1)
        assert not begun
        assert wish.patient


def test_handlers_are_back_afterwards():
    before = handlers()
    with pytest.raises(SeqlabError), wish_to_stop():
        assert handlers() != before
        raise SeqlabError("whatever")
    assert handlers() == before


def test_in_another_thread_nothing_is_heard_and_nothing_breaks():
    before, seen = handlers(), []

    def work():
        with wish_to_stop() as wish, wish.patience(), wish.patience(False):
            seen.append((wish.asked, handlers() == before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


def test_no_handler_of_errors_keeps_the_end_from_coming():
    with pytest.raises(Stopped), wish_to_stop():
        try:
            send()
        except Exception:
            raise AssertionError("it was taken for an error") from None


def counting(read, at):
    """Examples, one after the other; a signal when so many have been given in all."""
    given = [0]

    def reading(*arguments, **options):
        found = read(*arguments, **options)
        splits = found if isinstance(found, dict) else None

        def counted(examples):
            for example in examples:
                given[0] += 1
                if given[0] == at:
                    send()
                yield example

        return {name: counted(examples) for name, examples in splits.items()} if splits else counted(found)

    return reading


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [(CldrPhrases, "splits", 30), (Prepared, "read", 1), (Prepared, "read", 40), (Prepared, "read", 100)],
    ids=["preparation", "columns", "tokenizer", "ids"],
)
def test_while_data_is_prepared(tmp_path, owner, name, at):
    """Nothing half-made is left, and no run; the same call then does all of it."""
    before = handlers()
    reached = []
    with mock.patch.object(train_module, "run_steps", reached.append):
        with mock.patch.object(owner, name, counting(getattr(owner, name), at)), pytest.raises(Stopped):
            train(tiny_experiment(), tmp_path / "run", tmp_path / "data", say=lambda line: None)
        assert handlers() == before
        assert not (tmp_path / "run").exists()
        assert not list(tmp_path.rglob("*.part"))
        assert not reached
        train(tiny_experiment(), tmp_path / "run", tmp_path / "data", say=lambda line: None)
    assert len(reached) == 1


def test_a_broken_text_is_not_blamed_on_the_tokenizer():
    def texts():
        yield "a"
        raise SeqlabError("line 2: what is this?")

    with pytest.raises(SeqlabError, match="^line 2: what is this"):
        vocabulary.train_tokenizer(texts(), tiny_experiment().text)


def test_the_command_says_try_again(capsys):
    stopped = mock.patch.object(main, "run_command", side_effect=Stopped("stopped at step 7", agreed=True))
    with stopped, pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 75
    assert capsys.readouterr().err == "seqlab: stopped at step 7\n"


@pytest.mark.parametrize("number", BOTH)
def test_what_has_been_noted_is_found(number):
    """Signals from the first of the command on: nothing is raised before there is who takes it, nor after."""
    before = {one: signal.getsignal(one) for one in BOTH}
    try:
        with mock.patch("atexit.register") as at_exit:
            note_signals()
        assert [call.args for call in at_exit.call_args_list] == [(signal.signal, n, signal.SIG_IGN) for n in BOTH]
        with wish_to_stop(), wish_to_stop():
            pass
        send(number)
        send(number)
        begun = []
        with pytest.raises(Stopped, match="the same command goes on"), wish_to_stop():
            begun.append(1)
        assert not begun
        send(number)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def test_only_one_end_is_on_its_way():
    """Signals in the midst of clearing up do not cut it short."""
    cleared = []
    with pytest.raises(Stopped), wish_to_stop():
        try:
            send()
        finally:
            send()
            cleared.append(1)
    assert cleared


def test_raised_where_python_drops_it_and_raised_anew(capsys):
    """As in a garbage collection, whose callbacks may raise nothing; what others drop is told as ever."""

    def callback(phase, info):
        if phase == "start" and not heard:
            heard.append(phase)
            send()

    class Other:
        def __del__(self):
            raise ValueError("quite another")

    heard, told = [], []
    gc.callbacks.append(callback)
    try:
        with mock.patch("sys.unraisablehook", told.append):
            with pytest.raises(Stopped), wish_to_stop():
                Other()
                assert [str(one.exc_value) for one in told] == ["quite another"]
                gc.collect()
                time.sleep(60.0)
                raise AssertionError("it never came")
            assert len(told) == 1
    finally:
        gc.callbacks.remove(callback)
    assert heard
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
