"""`python -m r2w_eval.fakeserver`."""

from r2w_eval.fakeserver.server import main

main()
