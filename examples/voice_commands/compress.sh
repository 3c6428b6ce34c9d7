#!/bin/sh
# Makes fp32.edgebm (float, what int8 is compared with) and int8.edgebm in the folder that
# train.py wrote. Further options go to edgebm compress; RECIPES=int8 leaves the float one out.
set -eu
folder=${1:?"usage: compress.sh FOLDER [OPTIONS]"}
shift
for recipe in ${RECIPES:-fp32 int8}; do
    python -m edgebm compress "$folder/frames.onnx" --streaming --recipe $recipe --threads 1 \
        --data "$folder/calibration.npz" --eval "$folder/valid.npz" --metric top1 --max-drop 1 \
        --out "$folder/$recipe.edgebm" --force "$@"
done
python -m edgebm report "$folder/int8.edgebm" -o "$folder/int8.html" --force # what runs in int8
