"""What a training will need, told without training: parameters, operations, memory, time, disk and money."""
