#!/bin/sh
# Makes fp32.edgebm (float, what the other is compared with) and sentiment.edgebm (recipe.yaml:
# cut, taught, INT8) in the folder that train.py wrote. Further options go to edgebm compress.
# RECIPES=sentiment leaves the float one out; RECIPES=int8 makes int8.edgebm, which is not cut.
set -eu
here=$(dirname "$0")
folder=${1:?"usage: compress.sh FOLDER [OPTIONS OF edgebm compress]"}
shift
for name in ${RECIPES:-fp32 sentiment}; do
    recipe=$name
    [ "$name" != sentiment ] || recipe=$here/recipe.yaml
    edgebm compress "$folder/model" -r "$recipe" -d "$folder/texts.jsonl" \
        -e "$folder/dev.jsonl" --metric top1 --max-drop 1 --threads 1 \
        --shapes input_ids:1x16,1x32,1x64 -o "$folder/$name.edgebm" --force "$@"
done
cp "$folder/model/tokenizer.json" "$folder/tokenizer.json" # the device reads it beside the bundle
