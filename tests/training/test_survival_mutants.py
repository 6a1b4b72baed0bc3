"""Planted bugs in the code that makes runs robust: each must fail a test.

They are planted in the loaded modules and removed again, so that nothing is compiled twice.
"""

import contextlib
import gc
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import miniature
from tests.mutants import Mutant, each_mutant
from tests.system import test_files, test_signals
from tests.training import test_survival

NAN = "training.test_survival.test_rollback"
MOMENTS = "training.test_survival.test_killed_at_any_moment_of_a_save"
DISK = "training.test_survival.test_a_full_disk_costs_a_checkpoint_and_no_more"
DAMAGE = "training.test_survival.test_a_damaged_checkpoint_is_passed_over"
HALF = "system.test_files.test_a_write_that_fails_half_way_leaves_whole_lines"
PHASE = "training.test_survival.test_a_signal_when_the_state_is_judged"
STEP = "training.test_survival.test_a_signal_in_a_step_ends_with_a_checkpoint_of_it"
MUTANTS = (
    (
        Mutant(
            "the latest checkpoint, even if damaged",
            "runs.manifest",
            "            verify(run, step)\n            return step",
            "            return step",
            DAMAGE,
        ),
        (test_survival.flipped,),
    ),
    (
        Mutant(
            "missing files are ignored",
            "runs.manifest",
            "    if hashes != expected:",
            "    if any(expected[name] != digest for name, digest in hashes.items()):",
            DAMAGE,
        ),
        (test_survival.missing,),
    ),
    (
        Mutant(
            "an edited manifest is trusted",
            "runs.manifest",
            "if digest != _digest_of_manifest(manifest)",
            "if 0",
            DAMAGE,
        ),
        (test_survival.edited,),
    ),
    (
        Mutant(
            "a manifest of another step is trusted",
            "runs.manifest",
            'if not is_manifest or manifest["step"] != step:',
            "if not is_manifest:",
            DAMAGE,
        ),
        (test_survival.another,),
    ),
    (
        Mutant(
            "links are followed",
            "system.untrusted",
            "if path.is_symlink() or not (",
            "if not (",
            DAMAGE,
        ),
        (test_survival.linked,),
    ),
    (
        Mutant(
            "an unreadable file ends the run",
            "runs.manifest",
            '    except OSError as error:\n        raise SeqlabError(f"{folder}: cannot',
            '    except KeyError as error:\n        raise SeqlabError(f"{folder}: cannot',
            "training.test_survival.test_a_file_that_cannot_be_read_is_damage",
        ),
        (),
    ),
    (
        Mutant(
            "training starts again if all checkpoints are damaged",
            "runs.manifest",
            '    if steps:\n        raise SeqlabError(\n            f"{run}: all checkpoints are damaged',
            '    if 0:\n        raise SeqlabError(\n            f"{run}: all checkpoints are damaged',
            "training.test_survival.test_nothing_whole_is_one_error_and_nothing_is_lost",
        ),
        (),
    ),
    (
        Mutant(
            "damaged checkpoints replace intact ones",
            "runs.saving",
            "if saved <= step and saved % self.every == 0]",
            "if saved % self.every == 0]",
            "training.test_survival.test_damaged_checkpoints_push_out_no_whole_one",
        ),
        (),
    ),
    (
        Mutant(
            "folders without a manifest count",
            "runs.manifest",
            " and (p / MANIFEST).exists())",
            ")",
            "training.test_survival.test_a_half_written_save_was_never_there",
        ),
        (),
    ),
    (
        Mutant(
            "a state counts as validated too early",
            "training.loop",
            "self.save(judged=False)",
            "self.save(judged=True)",
            MOMENTS,
        ),
        (),
    ),
    (
        Mutant(
            "a validation is logged twice",
            "runs.log",
            "(judged or not is_validation(line))",
            "True",
            MOMENTS,
        ),
        (),
    ),
    (
        Mutant(
            "the manifest is not updated",
            "training.loop",
            "            self.outputs.saver.amend(step, self.progress.to_json())\n",
            "",
            PHASE,
        ),
        (3, False),
    ),
    (
        Mutant(
            "validation cannot be interrupted",
            "training.loop",
            "stop_request.deferral(jax.process_count() > 1)",
            "stop_request.deferral(True)",
            PHASE,
        ),
        (9, True),
    ),
    (
        Mutant(
            "a signal is ignored",
            "training.loop",
            "stopping = self.read_results() or (stop_request.requested and not several)",
            "stopping = self.read_results()",
            STEP,
        ),
        (4, 15),
    ),
    (
        Mutant(
            "a signal stops without a save",
            "training.loop",
            "        elif stopping or (saver.failure",
            "        elif (saver.failure",
            STEP,
        ),
        (5, 15),
    ),
    (
        Mutant(
            "a save can be interrupted",
            "training.outputs",
            "        stack.enter_context(context.stop_request.deferral())\n",
            "",
            "training.test_survival.test_a_signal_in_the_last_save_is_too_late",
        ),
        (),
    ),
    (
        Mutant(
            "a failed save is not retried",
            "training.loop",
            "stopping or (saver.failure and self.step % experiment.log_every == 0)",
            "stopping",
            DISK,
        ),
        ("folder",),
    ),
    (
        Mutant(
            "an old error of the checkpointer is raised again",
            "runs.saving",
            "            self.checkpointer.close()\n        self.checkpointer = new_checkpointer()  # the old",
            "            pass\n        # the old",
            "training.test_survival.test_room_comes_back_when_all_is_done",
        ),
        ("state",),
    ),
    (
        Mutant(
            "an unsaved last state is not an error",
            "training.loop",
            '        if saver.failure:\n            raise SeqlabError(\n                f"{self.context.run}: the',
            '        if 0:\n            raise SeqlabError(\n                f"{self.context.run}: the',
            "training.test_survival.test_a_disk_that_stays_full",
        ),
        ("folder",),
    ),
    (
        Mutant(
            "the last save is not retried",
            "training.loop",
            "                self.save(judged=True)\n                saver.wait()\n        if",
            "                pass\n        if",
            "training.test_survival.test_room_comes_back_when_all_is_done",
        ),
        ("folder",),
    ),
    (
        Mutant(
            "a complete state is overwritten for its manifest",
            "runs.saving",
            "if step == self.written:",
            "if 0:",
            "training.test_survival.test_what_is_owed_for_its_manifest_alone_is_not_written_over",
        ),
        (),
    ),
    (
        Mutant(
            "a failed write of an average is ignored",
            "runs.saving",
            "    if saver.failure:\n",
            "    if 0:\n",
            "training.test_survival.test_an_error_without_words_is_told",
        ),
        (),
    ),
    (
        Mutant(
            "the batch after the bad one is skipped",
            "training.feed",
            "if (epoch, index - 1) not in",
            "if (epoch, index) not in",
            NAN,
        ),
        ((4, 8),),
    ),
    (
        Mutant(
            "earlier skipped batches are forgotten",
            "training.progress",
            "left_out=(*self.left_out, *added)",
            "left_out=added",
            "training.test_survival.test_killed_after_a_rollback",
        ),
        (8,),
    ),
    (
        Mutant(
            "the wrong position is skipped",
            "training.loop",
            "position = (self.progress.epoch, self.progress.index - 1)",
            "position = (self.progress.epoch, self.progress.index)",
            NAN,
        ),
        ((1,),),
    ),
    (
        Mutant("the trail is not truncated", "runs.trail", 'line["step"] <= step]', "True]", NAN),
        ((5, 6),),
    ),
    (
        Mutant("the log is not truncated", "runs.log", 'line["step"] < step or', "True or", NAN),
        ((5, 6),),
    ),
    (
        Mutant(
            "show-batch ignores skipped batches",
            "evaluation.show_batch",
            "if skipped_epoch == epoch and",
            "if False and",
            NAN,
        ),
        ((1,),),
    ),
    (
        Mutant(
            "rollbacks are not limited",
            "training.recovery",
            " or rollbacks > MAX_IN_A_ROW:",
            " or rollbacks > 5 * MAX_IN_A_ROW:",
            "training.test_survival.test_too_many_in_a_row",
        ),
        (),
    ),
    (
        Mutant(
            "all skipped updates count, not only consecutive ones",
            "training.nonfinite",
            "            self.skipped = 0\n",
            "            pass\n",
            "training.test_survival.test_too_many_in_a_row",
        ),
        (),
    ),
    (
        Mutant(
            "a skipped update changes the average",
            "training.step",
            ".replace(step=after.step)",
            ".replace(step=after.step, average=after.average)",
            "training.test_survival.test_skip",
        ),
        (),
    ),
    (
        Mutant(
            "a gradient that is not finite is ignored",
            "training.step",
            'finite = jnp.isfinite(norm) & jnp.isfinite(sums["loss"])',
            'finite = jnp.isfinite(sums["loss"])',
            "training.test_survival.test_a_gradient_alone_that_is_not_finite",
        ),
        (),
    ),
    (
        Mutant(
            "the average swaps its weights",
            "training.averages",
            "share * a + (1.0 - share) * p",
            "share * p + (1.0 - share) * a",
            "training.test_survival.test_the_moving_average_is_what_is_judged",
        ),
        (),
    ),
    (
        Mutant(
            "a run resumes with another experiment",
            "runs.folder",
            "        if changed:\n            remedy",
            "        if 0:\n            remedy",
            "training.test_survival.test_what_may_change_from_one_part_of_a_run_to_the_next",
        ),
        (),
    ),
    (
        Mutant(
            "the last share lacks one item",
            "distributed.hosts",
            "(index + 1) * count // parts)",
            "(index + 1) * count // parts - (index + 1 == parts))",
            "training.test_survival.test_shares_cover_everything_once",
        ),
        (3,),
    ),
    (
        Mutant(
            "an error of process 0 is not shared",
            "distributed.hosts",
            "    if error is not None:\n",
            "    if 0:\n",
            "training.test_survival.test_what_the_first_does_alone",
        ),
        (),
    ),
    (
        Mutant(
            "a NaN validation loss is logged",
            "training.loop",
            'if not np.isfinite(values["loss"]):',
            "if 0:",
            "training.test_survival.test_a_validation_that_is_not_finite",
        ),
        (),
    ),
    (
        Mutant(
            "the parameters are validated instead of their average",
            "training.loop",
            "state.params if state.average is None else state.average",
            "state.params",
            "training.test_survival.test_the_moving_average_is_what_is_judged",
        ),
        (),
    ),
    (
        Mutant(
            "decoding ignores the average",
            "runs.checkpoint",
            'tree.get("average", tree["params"])',
            'tree["params"]',
            "training.test_survival.test_the_moving_average_is_what_is_judged",
        ),
        (),
    ),
    (
        Mutant(
            "the best checkpoint is removed",
            "runs.saving",
            'kept_steps = {step, *steps[-self.keep :], progress.get("best_step")}',
            "kept_steps = {step, *steps[-self.keep :]}",
            "training.test_survival.test_the_best_is_kept_beside_the_last",
        ),
        (),
    ),
    (
        Mutant(
            "a run is finished before its last validation",
            "runs.listing",
            ' and progress.get("judged"))',
            ")",
            "training.test_survival.test_a_run_is_finished_when_its_last_state_is_judged",
        ),
        (),
    ),
    (Mutant("half a line is left", "system.files", "self.stream.truncate(self.whole)", "pass", HALF), (33,)),
    (Mutant("waiting lines are lost", "system.files", "self.waiting += json", "self.waiting = json", HALF), (33,)),
    (
        Mutant(
            "closing does not retry",
            "system.files",
            "        error = self.flush()\n",
            "        error = None\n",
            "system.test_files.test_what_waits_is_written_in_the_end",
        ),
        (),
    ),
    (
        Mutant(
            "an error of TensorBoard ends the run",
            "runs.tensorboard",
            "            self.writer.flush()\n        except OSError as error:",
            "            self.writer.flush()\n        except KeyError as error:",
            "system.test_files.test_the_log_goes_on_without_tensorboard_and_without_room",
        ),
        (),
    ),
    (
        Mutant(
            "unwritable output ends the run",
            "training.train",
            "    with contextlib.suppress(OSError):\n        print",
            "    with contextlib.suppress(KeyError):\n        print",
            "system.test_files.test_words_for_which_there_is_no_room",
        ),
        (),
    ),
    (
        Mutant(
            "the second signal is deferred too",
            "system.signals",
            "if (repeated or not self.deferred) and",
            "if not self.deferred and",
            "system.test_signals.test_the_first_is_noted_and_the_second_ends",
        ),
        (15,),
    ),
    (
        Mutant(
            "signal handlers are not restored",
            "system.signals",
            "            signal.signal(number, handler)",
            "            pass",
            "system.test_signals.test_handlers_are_back_afterwards",
        ),
        (),
    ),
    (
        Mutant(
            "signal handlers are set in any thread",
            "system.signals",
            "if threading.current_thread() is not threading.main_thread():",
            "if False:",
            "system.test_signals.test_in_another_thread_nothing_is_heard_and_nothing_breaks",
        ),
        (),
    ),
    (
        Mutant(
            "Stopped is an ordinary error",
            "system.errors",
            "class Stopped(BaseException)",
            "class Stopped(Exception)",
            "system.test_signals.test_no_handler_of_errors_keeps_the_end_from_coming",
        ),
        (),
    ),
)
MODULES = {
    "system.test_files": test_files,
    "system.test_signals": test_signals,
    "training.test_survival": test_survival,
}


@contextlib.contextmanager
def planted_here(mutant: Mutant) -> Iterator[None]:
    """Plants a bug in a loaded module, and in all modules that have imported its names."""
    module = importlib.import_module(f"seqlab.{mutant.module}")
    source = Path(inspect.getfile(module)).read_text()
    assert source.count(mutant.old) == 1, mutant
    attributes = dict(vars(module))
    names_by_id = {
        id(value): name for name, value in attributes.items() if getattr(value, "__module__", None) == module.__name__
    }
    if mutant.module == "training.step":
        miniature.compiled.cache_clear()
    exec(compile(source.replace(mutant.old, mutant.new), module.__name__, "exec"), vars(module))
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for namespace in [
        vars(loaded) for name, loaded in sys.modules.items() if name.partition(".")[0] in ("seqlab", "tests")
    ]:
        for name, value in list(namespace.items()):
            if id(value) in names_by_id and namespace is not vars(module):
                replaced.append((namespace, name, value))
                namespace[name] = vars(module)[names_by_id[id(value)]]
    try:
        yield
    finally:
        for namespace, name, value in replaced:
            namespace[name] = value
        if mutant.module == "training.step":
            miniature.compiled.cache_clear()
        vars(module).clear()
        vars(module).update(attributes)


@pytest.fixture(autouse=True)
def sound():
    """Creates shared data with the unmodified code, and closes files that a killed run leaves open."""
    test_survival.undisturbed_end()
    test_survival.files_of(8)
    for bad in ((1,), (4, 8), (5, 6), (5,)):
        test_survival.end_without(*bad)
    gc.freeze()  # excludes existing objects, so that the collection after the test is fast
    yield
    gc.collect()
    gc.unfreeze()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@each_mutant(MUTANTS)
def test_mutant_is_caught(mutant, arguments, tmp_path):
    module, _, name = mutant.law.rpartition(".")
    test = getattr(MODULES[module], name)
    test_arguments = (tmp_path, *arguments) if "tmp_path" in inspect.signature(test).parameters else arguments
    with planted_here(mutant), pytest.raises(BaseException) as caught:  # noqa: PT011  # Stopped is not an Exception
        test(*test_arguments)
    assert not isinstance(caught.value, (KeyboardInterrupt, SystemExit, NameError, TypeError)), caught.value
