"""An OpenAI-compatible server on loopback with faults to order: `python -m r2w_eval.fakeserver`."""
