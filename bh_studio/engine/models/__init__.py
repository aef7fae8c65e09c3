"""From a checkpoint to weights in memory: formats, devices, memory."""
