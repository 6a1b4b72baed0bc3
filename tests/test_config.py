"""Each part of an experiment refuses values that are out of bounds or have another type, and names the field."""

import dataclasses
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from seqlab import config
from seqlab.config import (
    Batching,
    Checkpoints,
    Experiment,
    Optimizer,
    Parallel,
    Schedule,
    Search,
    Text,
    Validation,
)
from seqlab.decoding.risk import UTILITIES
from seqlab.search.presets import PRESETS, resolve_preset
from seqlab.search.settings import split_settings
from seqlab.system.errors import SeqlabError
from seqlab.training.optimizer import optimizer_at
from seqlab.training.schedule import make_schedule


def experiment(**fields):
    return Experiment(model=None, task=None, data=None, **fields)


REFUSED = [
    (Text, {"kind": "unigram"}, "text.kind must be one of bpe, char, word, not 'unigram'"),
    (Text, {"sample": 0}, "text.sample must be at least 1, not 0"),
    (Text, {"joint": 1}, "text.joint must be of type bool, not 1"),
    (Batching, {"tokens": 0}, "batching.tokens must be at least 1, not 0"),
    (Batching, {"buckets": 0}, "batching.buckets must be at least 1, not 0"),
    (Batching, {"max_length": 0}, "batching.max_length must be at least 1, not 0"),
    (Batching, {"max_ratio": math.nan}, "batching.max_ratio must be at least 1, not nan"),
    (Optimizer, {"name": "lion"}, "optimizer.name must be one of adam, adamw"),
    (Optimizer, {"beta1": 1.0}, r"optimizer.beta1 must be at least 0 and below 1, not 1.0"),
    (Optimizer, {"beta2": -0.1}, r"optimizer.beta2 must be at least 0 and below 1, not -0.1"),
    (Optimizer, {"epsilon": math.inf}, "optimizer.epsilon must be a finite number of at least 0, not inf"),
    (Optimizer, {"weight_decay": -1.0}, "optimizer.weight_decay must be a finite number of at least 0, not -1.0"),
    (Optimizer, {"average": 1.0}, r"optimizer.average must be at least 0 and below 1, not 1.0"),
    (Optimizer, {"average_from": -1}, "optimizer.average_from must be at least 0, not -1"),
    (Optimizer, {"average": 0.9, "average_from": 2}, "optimizer.average and optimizer.average_from are two averages"),
    (Optimizer, {"l1": -0.1}, "optimizer.l1 must be a finite number of at least 0, not -0.1"),
    (Optimizer, {"depth_decay": 0.0}, "optimizer.depth_decay must be above 0 and at most 1, not 0.0"),
    (Optimizer, {"depth_decay": 1.1}, "optimizer.depth_decay must be above 0 and at most 1, not 1.1"),
    (Optimizer, {"unfreeze": (("(", 2),)}, r"optimizer.unfreeze: '\(' is not a regular expression"),
    (Optimizer, {"unfreeze": (("a", 1),)}, "optimizer.unfreeze: the step of 'a' must be at least 2, not 1"),
    (Optimizer, {"clip": -1.0}, "optimizer.clip must be at least 0, not -1.0"),
    (Optimizer, {"clip": math.inf}, "optimizer.clip must be a finite number, not inf"),
    (Schedule, {"name": "up"}, "schedule.name must be one of constant"),
    (Schedule, {"every": 0}, "schedule.every must be at least 1, not 0"),
    (Schedule, {"warmup": -1}, "schedule.warmup must be at least 0, not -1"),
    (Schedule, {"peak": math.nan}, "schedule.peak must be a finite number of at least 0, not nan"),
    (Validation, {"every": 0}, "validation.every must be at least 1, not 0"),
    (Validation, {"examples": 0}, "validation.examples must be at least 1, not 0"),
    (Validation, {"beam": -1}, "validation.beam must be at least 0, not -1"),
    (Validation, {"metric": "bleu", "beam": 0}, "validation.metric 'bleu' needs decoded texts"),
    (Checkpoints, {"last": 0}, "checkpoints.last must be at least 1, not 0"),
    (Parallel, {"name": "threads"}, "parallel.name must be one of jit, pmap, not 'threads'"),
    (Parallel, {"fsdp": 0}, "parallel.fsdp must be at least 1, not 0"),
    (Parallel, {"name": "pmap", "tensor": 2}, "parallel.fsdp and parallel.tensor need jit"),
    (Search, {"beam": 0}, "beam must be at least 1, not 0"),
    (Search, {"beam": 10_001}, "beam must be at most 10,000, not 10,001"),
    (Search, {"preset": "opennmt"}, "preset must be one of seqlab, gnmt"),
    (Search, {"length": "root"}, "length must be one of none, gnmt, power"),
    (Search, {"stop": "late"}, "stop must be one of optimal, first"),
    (Search, {"alpha": math.nan}, "alpha must be between -1,000,000 and 1,000,000, not nan"),
    (Search, {"coverage": -0.1}, "coverage must be at least 0, not -0.1"),
    (Search, {"beam": 5, "groups": 2}, "beam must be a multiple of groups: 5 is not a multiple of 2"),
    (Search, {"repetition": 0.0}, "repetition must be above 0"),
    (Search, {"max_length": -1}, "max_length must be at least 1, not -1"),
    (Search, {"max_length": 8193}, "an output can have at most 8192 tokens, not 8193"),
    (Search, {"max_length": 2, "min_length": 3}, "min_length 3 is above max_length 2"),
    (Search, {"max_ratio": 0.5, "min_ratio": 0.6}, "min_ratio 0.6 is above max_ratio 0.5"),
    (Search, {"risk": "ter", "sample": 1}, "risk must be one of chrf, bleu, not 'ter'"),
    (Search, {"sample": 1, "beam": 4, "groups": 2}, "samples have no beam: leave out groups or sample"),
    (Search, {"sample": 1, "stop": "first"}, "samples have no beam: leave out stop or sample"),
    (Search, {"length": "none", "alpha": 0.5}, "length is none: leave out alpha"),
    (Search, {"diversity": 0.4}, "set groups to 2 or more"),
    (Search, {"beam": 1, "coverage": 0.2}, "set beam to 2 or more, and leave out sample"),
    (Search, {"sample": 1, "coverage": 0.2}, "set beam to 2 or more, and leave out sample"),
    (Search, {"forbid": "abc"}, "search.forbid must be of type tuple"),
    (Search, {"alpha": "1"}, "search.alpha must be of type float . None, not '1'"),
    (Search, {"top_k": 3}, "top_k needs samples: give a seed, such as --sample 1"),
    (Search, {"sample": 1 << 31}, "sample must be a seed from 0 to 2147483647, not 2147483648"),
    (Search, {"sample": 1, "temperature": 0.0}, "temperature must be above 0 and below 1,000,000, not 0.0"),
    (Search, {"sample": 1, "top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
    (experiment, {"steps": 0}, "steps must be between 1 and 2147483647, not 0"),
    (experiment, {"seed": -1}, "seed must be between 0 and 4294967295, not -1"),
    (experiment, {"steps": 10**5000}, "steps is out of range"),
    (experiment, {"steps": "3"}, "steps must be of type int, not .3."),
    (experiment, {"nonfinite": "ignore"}, "nonfinite must be one of stop, skip, rollback, not 'ignore'"),
    (experiment, {"accumulate": 0}, "accumulate must be at least 1, not 0"),
    (experiment, {"log_every": 0}, "log_every must be at least 1, not 0"),
    (experiment, {"hash_every": -1}, "hash_every must be at least 0, not -1"),
]


@pytest.mark.parametrize(("make", "fields", "message"), REFUSED)
def test_refused(make, fields, message):
    with pytest.raises(SeqlabError, match=message):
        make(**fields)


@pytest.mark.parametrize("part", [Text, Batching, Optimizer, Schedule, Search, Validation, Checkpoints, Parallel])
def test_a_field_of_another_type(part):
    """The error for each field of a basic type names the field and its type."""
    for field in dataclasses.fields(part):
        if field.type in (int, float, str, bool):
            wrong = "3" if field.type is not str else 3
            with pytest.raises(SeqlabError, match=f"{field.name} must be of type {field.type.__name__}, not "):
                part(**{field.name: wrong})


@given(st.sampled_from(sorted(PRESETS)), st.none() | st.floats(-2, 2), st.sampled_from([None, "none", "power"]))
def test_a_preset_gives_what_the_search_leaves_open(name, alpha, length):
    assume(not (alpha and length == "none"))
    preset = resolve_preset(Search(preset=name, alpha=alpha, length=length))
    assert preset.alpha == (PRESETS[name].alpha if alpha is None else alpha)
    assert preset.rules.length_penalty == (length or PRESETS[name].rules.length_penalty)


def test_the_names_in_the_config_are_those_that_exist():
    assert tuple(PRESETS) == config.PRESET_NAMES
    assert tuple(UTILITIES) == config.RISKS
    for name in config.OPTIMIZERS:
        optimizer_at(Optimizer(name), make_schedule(Schedule(), 10)).init({})
    for name in config.SCHEDULES:
        assert make_schedule(Schedule(name), 10)(0) > 0


def test_greedy_search_scores_by_its_length_penalty():
    assert split_settings(Search(beam=1, length="none"), eos=2).static.rules.length_penalty == "none"
