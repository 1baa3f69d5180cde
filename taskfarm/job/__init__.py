"""What a job touches on rank 0: the decorator, the farm, futures and maps."""
