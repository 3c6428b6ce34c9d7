#!/bin/sh
# From the folder that train.py wrote to a bundle of which one point of top-1 may be lost.
#   sh examples/driving_signs/compress.sh [FOLDER] [MORE OPTIONS OF edgebm compress]
set -eu
here=$(dirname "$0")
folder=${1:-signs}
[ $# -eq 0 ] || shift
edgebm compress "$folder/signs.onnx" -r "$here/recipe.yaml" -d "$folder/calibration.npz" \
  -e "$folder/test.npz" --metric top1 --max-drop 1 -o "$folder/signs.edgebm" --force "$@"
edgebm report "$folder/signs.edgebm" -o "$folder/signs.html" --force
