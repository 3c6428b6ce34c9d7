#!/bin/sh
# Makes beats.edgebm of what train.py wrote: compress.sh FOLDER [OPTION OF edgebm compress]...
# Of the options -r chooses another recipe.
# A gate that fails stops the bundle: exit code 3, and no bundle is written. The variables
# SENSITIVITY and SPECIFICITY set other gates.
set -eu
here=$(dirname "$0")
folder=${1:?usage: compress.sh FOLDER}
shift
edgebm compress "$folder/beats.onnx" -r "$here/recipe.yaml" -d "$folder/calibration.npz" -e "$folder/test.npz" \
    --max-drop 1 \
    --gate "sensitivity>=${SENSITIVITY:-0.95}" --gate "specificity>=${SPECIFICITY:-0.85}" \
    -o "$folder/beats.edgebm" "$@"
