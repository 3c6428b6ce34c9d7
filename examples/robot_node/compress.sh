#!/bin/sh
# From the folder that train.py wrote to FOLDER/digits.edgebm, of which one point may be lost.
#   sh examples/robot_node/compress.sh [FOLDER] [MORE OPTIONS OF edgebm compress]
set -eu
here=$(dirname "$0")
folder=${1:-robot}
[ $# -eq 0 ] || shift
edgebm compress "$folder/digits.onnx" -r "$here/recipe.yaml" -d "$folder/calibration.npz" \
  -e "$folder/test.npz" --metric top1 --max-drop 1 -o "$folder/digits.edgebm" --force "$@"
