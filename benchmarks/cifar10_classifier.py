"""Trains the judge of CIFAR-10 photographs that comes with fromnoise: python -m benchmarks.cifar10_classifier"""

from benchmarks.classifier import main

if __name__ == "__main__":
    main("cifar10", epochs=10)
