"""Every stage under every fault: `python -m benchmarks.reliability`."""
