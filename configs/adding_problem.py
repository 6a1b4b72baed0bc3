"""The adding problem (Hochreiter & Schmidhuber 1997): can a layer remember two numbers over hundreds of steps?

    seqlab train configs/adding_problem.py --out runs/adding-gru
    seqlab train configs/adding_problem.py --out runs/adding-lstm --model.encoder.cell lstm --model.encoder.dim 110
    seqlab evaluate runs/adding-gru

200 positions, 50,000 sequences, batches of 32, Adam, about 50,000 parameters (Bai et al. 2018, table 1: 70,000).
Always predicting 1 has a mean squared error of 0.167. `adding_problem_tcn.py` uses convolutions.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Validation
from seqlab.datasets.adding_problem import AddingProblem
from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.models.regressor_head import RegressorHead
from seqlab.readers.numbers import Numbers
from seqlab.tasks.regression import Regression

LENGTH = 200

experiment = Experiment(
    model=RegressorHead(RecurrentEncoder(Numbers(), cell="gru", layers=1, dim=130)),
    task=Regression(features=2),
    data=AddingProblem(LENGTH),
    steps=3000,
    batching=Batching(tokens=32 * LENGTH, buckets=1, max_length=LENGTH),
    optimizer=Optimizer(beta2=0.999, epsilon=1e-8),
    schedule=Schedule(name="constant", peak=2e-3, warmup=0),
    validation=Validation(every=250, metric="mse"),
)
