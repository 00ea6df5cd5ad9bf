"""`python -m r2w_eval` is `r2w-eval`."""

from r2w_eval.cli.app import main

if __name__ == "__main__":
    main()
