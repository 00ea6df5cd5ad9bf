#!/bin/bash
# What `ray submit` runs on the head node: the paths are seen by every node.
set -euo pipefail
RAY_AUTH_MODE=token RAY_ADDRESS=auto ~/r2w/bin/r2w-eval score --on ray --scorer r2w-reward \
  --input s3://BUCKET/items/ --output s3://BUCKET/scores/ --workers 64
