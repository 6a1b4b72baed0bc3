"""The adding problem (Hochreiter & Schmidhuber 1997) with convolutions; see `adding_problem.py`.

seqlab train configs/adding_problem_tcn.py --out runs/adding-tcn
seqlab evaluate runs/adding-tcn
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Validation
from seqlab.datasets.adding_problem import AddingProblem
from seqlab.encoders.dilated import DilatedEncoder
from seqlab.models.regressor_head import RegressorHead
from seqlab.readers.numbers import Numbers
from seqlab.tasks.regression import Regression

LENGTH = 200

experiment = Experiment(
    model=RegressorHead(DilatedEncoder(Numbers(), layers=7, dim=27, kernel=6)),
    task=Regression(features=2),
    data=AddingProblem(LENGTH),
    steps=3000,
    batching=Batching(tokens=32 * LENGTH, buckets=1, max_length=LENGTH),
    optimizer=Optimizer(beta2=0.999, epsilon=1e-8),
    schedule=Schedule(name="constant", peak=2e-3, warmup=0),
    validation=Validation(every=250, metric="mse"),
)
