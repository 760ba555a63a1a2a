#!/usr/bin/env bash
# Trains every method on one set of photographs, two CPU cores and some minutes
# each, and puts them side by side: one table, one sheet. What was stopped goes
# on when the same line is typed again.
#
#   bash launch/every_method_small.sh flowers17 runs
#
# PHOTOS holds train/ and test/, each with photographs at any depth. README.md,
# "Results", has the table for Oxford Flowers 17 (Nilsback and Zisserman 2006;
# 64 training and 8 test photographs a class). PYTHON names another interpreter.
set -euo pipefail
usage='bash launch/every_method_small.sh PHOTOS RUNS'
photos=${1:?$usage} runs=${2:?$usage}
flags=$(dirname "${BASH_SOURCE[0]}")/flags
python=${PYTHON:-python}
data=("--data=folder:$photos/train" "--eval_data=folder:$photos/test")

train() {
  local name=$1
  shift
  "$python" -m "experiments.$name" \
    "--flagfile=$flags/${name}_small.flags" "${data[@]}" \
    "--workdir=$runs/$name" "$@"
}

mkdir -p "$runs"
for method in grey mean_colour levin; do
  "$python" -m experiments.baselines "--method=$method" \
    --levin_form=equations "${data[@]}" "--workdir=$runs/$method"
done
"$python" -m experiments.measure_prior "--data=folder:$photos/train" \
  --block_size=2 "--output=$runs/prior.json"
train mbm --num_steps=1300
train classification "--prior=$runs/prior.json"
train residual_autoencoder
train xception_fusion
train inception_fusion
train mask_gan

names=(grey mean_colour levin mbm classification residual_autoencoder
       xception_fusion inception_fusion mask_gan)
all=$(printf ",$runs/%s" "${names[@]}")
"$python" -m experiments.side_by_side "--runs=${all:1}" \
  "--data=folder:$photos/test" "--output=$runs/side_by_side"
