"""Logs, plots and TensorBoard events on a full disk: log lines stay complete and in order, and none is lost."""

import json
import resource
import struct
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from seqlab.runs import tensorboard, trail
from seqlab.runs.curves import draw_curves
from seqlab.runs.log import Logbook
from seqlab.system.errors import SeqlabError
from seqlab.system.files import Journal, read_jsonl
from seqlab.training.train import print_line
from tests.miniature import Plan, collate, first_state

LINES = [{"step": step, "loss": 1 / (step + 1)} for step in range(6)]
WHOLE = "".join(json.dumps(line) + "\n" for line in LINES).encode()


@contextmanager
def room(size: int):
    """Limits the size of files, as on a full disk: a write that exceeds it stops there."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def keep(path, holds=lambda line: True):
    return Journal(path, [line for line in read_jsonl(path) if holds(line)])


@pytest.mark.parametrize("size", range(0, len(WHOLE), 11))
def test_a_write_that_fails_half_way_leaves_whole_lines(tmp_path, size):
    path = tmp_path / "log"
    journal = keep(path)
    with room(size):
        failed = [journal.write(line) is not None for line in LINES[:4]]
        content = path.read_bytes()
        fits = WHOLE[:size].rfind(b"\n") + 1
        assert content == WHOLE[: min(fits, len(b"".join(WHOLE.splitlines(True)[:4])))]
        assert failed == [len(b"".join(WHOLE.splitlines(True)[: n + 1])) > size for n in range(4)]
    for line in LINES[4:]:
        assert journal.write(line) is None
    assert path.read_bytes() == WHOLE
    assert journal.close() is None


def test_what_waits_is_written_in_the_end(tmp_path):
    journal = keep(tmp_path / "log")
    with room(5):
        assert [journal.write(line) is None for line in LINES] == [False] * 6
    assert journal.close() is None
    assert (tmp_path / "log").read_bytes() == WHOLE
    journal = keep(tmp_path / "log", lambda line: line["step"] < 3)
    with room(5):
        assert "large" in str(journal.write(LINES[3]))
        assert journal.close() is not None
    assert read_jsonl(tmp_path / "log") == LINES[:3]


def test_a_line_cut_short_by_a_kill_does_not_count(tmp_path):
    for size in range(len(WHOLE) - 12, len(WHOLE)):
        (tmp_path / "log").write_bytes(WHOLE[:size])
        keep(tmp_path / "log").close()
        assert read_jsonl(tmp_path / "log") == LINES[:5]
        assert (tmp_path / "log").read_bytes().endswith(b"\n")


def test_the_log_goes_on_without_tensorboard_and_without_room(tmp_path):
    """A failure of the events is reported once and ends them. A failure of the log is reported and retried."""
    messages = []
    book = Logbook(tmp_path, 0, 1, messages.append)
    full = mock.Mock(side_effect=OSError(28, "No space left on device"))
    with mock.patch.object(book.events.writer, "flush", full), room(0):
        book.write(1, {"loss": 2.0})
        book.write(2, {"loss": 1.0})
    assert [line.split(" CANNOT")[0].split(" file")[0] for line in messages] == [
        str(tmp_path / "metrics.jsonl"),
        "the TensorBoard",
        str(tmp_path / "metrics.jsonl"),
    ]
    book.write(3, {"loss": 0.5})
    book.close()
    assert [line["step"] for line in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    with mock.patch.object(tensorboard, "open_events", full):
        messages.clear()
        book = Logbook(tmp_path, 2, 1, messages.append)
        book.write(3, {"loss": 0.5})
        book.close()
    assert len(messages) == 1
    assert "it is abandoned, metrics.jsonl has all values" in messages[0]


def test_a_validation_that_is_repeated_is_once_in_tensorboard(tmp_path):
    """The state of step 2 was logged and validated, but the validation was not saved."""
    book = Logbook(tmp_path, 0, 1, print)
    for step in (1, 2):
        book.write(step, {"loss": 2.0 / step})
    book.write(2, {"validation loss": 7.0})
    book.close()
    book = Logbook(tmp_path, 2, 1, print, judged=False)
    book.write(2, {"validation loss": 7.0})
    book.close()
    assert scalars(tmp_path / "tensorboard") == [(1, "loss", 2.0), (2, "loss", 1.0), (2, "validation_loss", 7.0)]


def scalars(folder):
    """The scalars in event files, without those that later files discard."""
    kept = []
    for path in sorted(folder.glob("events*")):
        content, place = path.read_bytes(), 0
        while place < len(content):  # TFRecord: length, checksum, content, checksum
            (size,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + size])
            place += size + 16
            if event.HasField("session_log"):
                kept = [scalar for scalar in kept if scalar[0] < event.step]
            kept += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return kept


def test_lines_that_never_found_room_are_an_error(tmp_path):
    book = Logbook(tmp_path, 0, 1, lambda line: None)
    hashes = trail.Trail(tmp_path, 0)
    with room(0):
        book.write(1, {"loss": 2.0})
        hashes.write(1, collate(Plan().batches(0, 0)[0]), first_state())
        with pytest.raises(SeqlabError, match=r"metrics.jsonl could not be written completely: .*large"):
            book.close()
        with pytest.raises(SeqlabError, match=r"hashes.jsonl could not be written completely: .*large"):
            hashes.close()


def test_a_picture_for_which_there_is_no_room(tmp_path):
    """Plotting raises an error, and works again later."""
    book = Logbook(tmp_path, 0, 1)
    for step in (1, 2):
        book.write(step, {"validation loss": float(np.float32(1 / step))})
    book.close()
    with room(100), pytest.raises(OSError, match="large"):
        draw_curves(tmp_path)
    draw_curves(tmp_path)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_words_for_which_there_is_no_room(tmp_path):
    """Training continues if its output cannot be written."""
    with (tmp_path / "output").open("w") as output, mock.patch("sys.stdout", output):
        with room(3):
            print_line("a line")
        print_line("another")
    assert (tmp_path / "output").read_text().endswith("another\n")
