"""A decision tree and a kernel machine: python scikit_learn.py STUDY. The method asks for outputs, not for gradients."""

import sys

import numpy as np
from sklearn.kernel_ridge import KernelRidge
from sklearn.tree import DecisionTreeClassifier

import dmstore
from dmstore.training import RunWriter, margin

study = dmstore.open_study(sys.argv[1])
x, target_x = (
    e.image.values.reshape(e.image.shape[0], -1) / 255 for e in (study.train, study.targets)
)
y, target_y = study.train.label.values, study.targets.label.values
one_hot = np.eye(len(study.class_names))[y]

# Leaves give probabilities, of which some are 0 or 1: the probability of the label is stored, as its log-odds may be infinite.
if "tree" not in study.algorithms:
    study.add_algorithm("tree", runs=20, outputs=["probability"])
with RunWriter(study, "tree") as writer:
    for run in writer.pending():
        tree = DecisionTreeClassifier(min_samples_leaf=5, random_state=run.seed % 2**32)
        tree.fit(x[run.mask], y[run.mask])
        p = np.zeros((len(target_y), len(study.class_names)))
        p[:, tree.classes_] = tree.predict_proba(
            target_x
        )  # a class that the mask leaves out has no column
        writer.append(
            run, probability=p[np.arange(len(target_y)), target_y], leaves=tree.get_n_leaves()
        )

# A score a class: the margin is the score of the label less the best other one.
if "kernel" not in study.algorithms:
    study.add_algorithm("kernel", runs=20)
with RunWriter(study, "kernel") as writer:
    for batch in writer.pending(batch=10):
        score = [
            KernelRidge(alpha=0.1, kernel="rbf", gamma=0.1)
            .fit(x[run.mask], one_hot[run.mask])
            .predict(target_x)
            for run in batch
        ]
        accuracy = (np.argmax(score, axis=-1) == target_y).mean(axis=1)
        writer.append_many(batch, margin=margin(score, target_y), accuracy=accuracy)
