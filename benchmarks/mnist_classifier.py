"""Trains the judge of MNIST digits that comes with fromnoise: python -m benchmarks.mnist_classifier"""

from benchmarks.classifier import main

if __name__ == "__main__":
    main("mnist", epochs=10)
