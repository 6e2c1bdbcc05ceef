"""The model: a logistic regression as two arrays, 30 coefficients and one intercept."""

import warnings

import numpy as np

from breast_cancer.data import RANGES, Matrix, Patients

Weights = list[Matrix]


def initial() -> Weights:
    """The model before training: every tumour is as likely malignant as benign."""
    return [np.zeros(len(RANGES)), np.zeros(1)]


def train(weights: Weights, patients: Patients, epochs: int, penalty: float) -> Weights:
    """Go on from `weights` for at most `epochs` passes over the patients.

    The penalty counts per patient, so that a small site and all sites together minimise the same function.
    """
    # Here and not above: testing does not need it, and a ClientApp starts for every message.
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    model = LogisticRegression(C=1 / (penalty * len(patients)), max_iter=epochs, warm_start=True)
    model.classes_ = np.array([0.0, 1.0])
    model.coef_ = weights[0].reshape(1, -1).copy()
    model.intercept_ = weights[1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged is what a round is
        model.fit(patients.features, patients.malignant)
    return [np.asarray(model.coef_[0]), np.asarray(model.intercept_)]


def evaluate(weights: Weights, patients: Patients) -> tuple[float, float]:
    """Return the mean log loss and the share of patients that the model sees rightly."""
    score = patients.features @ weights[0] + weights[1]
    loss = np.logaddexp(0, np.where(patients.malignant == 1, -score, score)).mean()
    accuracy = ((score > 0) == (patients.malignant == 1)).mean()
    return float(loss), float(accuracy)
