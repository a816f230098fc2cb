"""What a step runs on and with: device, processes, environment, progress and what it cost."""
