"""TRAK scores, by TRAK's own package on a CPU, of models that dmstore trained on all data and kept."""

import shutil
import time

import numpy as np
import torch

from dmstore.study import kept_models
from dmstore.training.config import TrainingConfig
from dmstore.training.models import make
from dmstore.training.task import make_task
from studies.pretraining.figure import experiment

BATCH = 250
PROJECTION = 512


def task_of(study, name):
    """What trains the runs of an algorithm."""
    algorithm = study.algorithm(name)
    return make_task(study, algorithm.task, algorithm.config, list(algorithm.outputs))


def seconds_of_a_run(study, name, runs=64):
    """CPU time of one run, over `runs` that are trained again here and not stored."""
    task = task_of(study, name)
    some = study.algorithm(name).describe(np.arange(runs))
    task.train(some[:2])
    began = time.process_time()
    for start in range(0, runs, task.batch):
        task.train(some[start : start + task.batch])
    return (time.process_time() - began) / runs


def opened(study, name, number, shape):
    """A kept model."""
    algorithm = study.algorithm(name)
    state, _ = kept_models.read(algorithm.objects, kept_models.place(name, number))
    model = make(TrainingConfig.of(algorithm.config), shape, len(study.class_names))
    model.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in state.items()})
    return model.eval()


def score(study, name, folder, counts):
    """Write TRAK's folder, with an experiment for the first 1, 2, … models.

    Parameters
    ----------
    study : Study
    name : str
        An algorithm with kept models.
    folder : path
        Made anew.
    counts : tuple of int
        How many models the experiments take.

    Returns
    -------
    float
        CPU seconds for one model: gradients of the train units, and of the targets.
    """
    from trak import TRAKer

    shutil.rmtree(folder, ignore_errors=True)
    loader = task_of(study, name).loader
    train, targets = (
        batches(loader, part, examples.label.values)
        for part, examples in (("train", study.train), ("test", study.target_set("test")))
    )
    models = [opened(study, name, number, loader.shape) for number in range(max(counts))]
    traker = TRAKer(
        model=models[0],
        task="image_classification",
        train_set_size=study.train.sizes["train"],
        save_dir=str(folder),
        device="cpu",
        proj_dim=PROJECTION,
        use_half_precision=False,
    )
    began = time.process_time()
    for number, model in enumerate(models):
        traker.load_checkpoint(model.state_dict(), model_id=number)
        for batch in train:
            traker.featurize(batch=batch, num_samples=len(batch[1]))
    traker.finalize_features()
    featured = time.process_time()
    for count in counts:
        for number in range(count):
            traker.start_scoring_checkpoint(
                experiment(count),
                models[number].state_dict(),
                number,
                study.targets.sizes["target"],
            )
            for batch in targets:
                traker.score(batch=batch, num_samples=len(batch[1]))
        traker.finalize_scores(exp_name=experiment(count), model_ids=list(range(count)))
    return (featured - began) / len(models) + (time.process_time() - featured) / sum(counts)


def batches(loader, part, label):
    """Inputs as models take them, and labels."""
    inputs = list(loader.evaluate(part, BATCH))
    labels = torch.from_numpy(label.astype(np.int64)).split(BATCH)
    return list(zip(inputs, labels, strict=True))
