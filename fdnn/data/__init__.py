"""The data sets of the examples and the studies: train, validation and test, as plain tensors."""

from fdnn.data.cache import DataNotFound
from fdnn.data.idx import read_idx
from fdnn.data.images import FASHION_MNIST_CLASSES, digits, fashion_mnist
from fdnn.data.splits import Batch, Splits
from fdnn.data.tabular import california_housing, diabetes

__all__ = [
    "FASHION_MNIST_CLASSES",
    "Batch",
    "DataNotFound",
    "Splits",
    "california_housing",
    "diabetes",
    "digits",
    "fashion_mnist",
    "read_idx",
]
