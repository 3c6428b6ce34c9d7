#!/bin/sh
# Makes xray.edgebm of what train.py wrote: compress.sh FOLDER [OPTION OF edgebm compress]...
# A gate that fails stops the bundle: exit code 3, and no bundle is written. The variables
# SENSITIVITY and SPECIFICITY set other gates. The graphs that were built lie in FOLDER/graphs
# afterwards: saliency.py reads the one that was chosen.
set -eu
folder=${1:?usage: compress.sh FOLDER}
shift
edgebm compress "$folder/xray.onnx" -d "$folder/calibration.npz" -e "$folder/test.npz" \
    --max-drop 1 \
    --gate "sensitivity>=${SENSITIVITY:-0.95}" --gate "specificity>=${SPECIFICITY:-0.70}" \
    --keep "$folder/graphs" -o "$folder/xray.edgebm" "$@"
