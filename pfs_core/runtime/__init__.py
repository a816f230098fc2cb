"""The surroundings of a step: device, processes, environment, logs, progress and cost."""
