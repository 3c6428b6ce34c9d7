#!/bin/sh
# Makes encoder-int8.edgebm and decoder-int8.edgebm in the folder that train.py wrote, and the same
# in fp32, which int8 is compared with. Further options go to edgebm compress; RECIPES=int8 leaves
# fp32 out. With COMPARE=1 there is also encoder-all.edgebm and decoder-all.edgebm, which hold every
# candidate of either runtime for judge.py.
set -eu
here=$(dirname "$0")
folder=${1:?"usage: compress.sh FOLDER [OPTIONS]"}
shift
export TRANSLATE="$folder"

encoder() {
    edgebm compress "$folder/encoder.onnx" --threads 1 --force --data "$folder/encoder.npz" \
        --shapes input_ids:1x16,1x32,1x48 --measurements "$folder/encoder.measured" "$@"
}

decoder() { # for one hypothesis, and for a beam of four
    edgebm compress "$folder/decoder.onnx" --threads 1 --force --data "$here/samples.py:calibration" \
        --eval "$here/samples.py:next_token" --max-drop 0.5 --shapes input_ids:1x1,4x1 \
        --measurements "$folder/decoder.measured" "$@"
}

for recipe in ${RECIPES:-fp32 int8}; do
    encoder --recipe "$recipe" --out "$folder/encoder-$recipe.edgebm" "$@"
    decoder --recipe "$recipe" --out "$folder/decoder-$recipe.edgebm" "$@"
done
if [ "${COMPARE:-0}" = 1 ]; then
    encoder --recipe int8 --all-candidates --out "$folder/encoder-all.edgebm" "$@"
    decoder --recipe int8 --all-candidates --out "$folder/decoder-all.edgebm" "$@"
fi
