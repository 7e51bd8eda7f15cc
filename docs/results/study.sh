#!/usr/bin/env bash
# The study: bash study.sh MODEL PHOTOS RUN [main|masked|mosaics|randomised]
#
# MODEL is a classifier of `captum-scorecam evaluate`, PHOTOS a folder with labels.csv, in the order in which its images
# are evaluated, and RUN the folder to write. The same command resumes a run; it can be stopped at any time.
set -euo pipefail
part=${4:-main}
gradients=(--method grad_cam --method grad_cam_plus_plus --method layer_cam)
score_cam=(
    --method score_cam
    --method "score_cam_score=score_cam:score=probability,channel_weighting=score"
    --method "score_cam_increase=score_cam:channel_weighting=increase"
    --method "score_cam_32=score_cam:max_forwards=32"
    --method "score_cam_64=score_cam:max_forwards=64"
)
captum=(
    --method "occlusion=captum:Occlusion:sliding_window_shapes=(3,32,32),strides=(3,16,16)"
    --method "integrated_gradients=captum:IntegratedGradients:n_steps=50"
)
controls=(--method centre --method uniform)
case $part in
main)
    options=(
        "${gradients[@]}" "${score_cam[@]}" --method rise --method mask "${captum[@]}" "${controls[@]}"
        --metric average_drop --metric average_increase --metric average_drop_half --metric average_increase_half
        --metric insertion_28 --metric deletion_28 --metric srg_28 --metric sparseness
    )
    ;;
masked) # without Mask, and on fewer images: ROAD solves linear systems, coherency explains each masked image
    options=(
        "${gradients[@]}" "${score_cam[@]}" --method rise "${captum[@]}" "${controls[@]}"
        --metric road --metric adcc --metric coherency --images 20
    )
    ;;
mosaics)
    options=(
        "${gradients[@]}" "${score_cam[@]}" --method rise --method mask "${captum[@]}" "${controls[@]}"
        --metric mosaic_pointing_game --target label --images 20
    )
    ;;
randomised) # without RISE and Mask: each method explains seven models
    options=(
        "${gradients[@]}" --method score_cam "${captum[@]}" --method centre
        --metric sanity_check --images 10
    )
    ;;
esac
PYTHONPATH="$(dirname "$0")${PYTHONPATH:+:$PYTHONPATH}" captum-scorecam evaluate "$2" --output "$3" --data-format csv \
    --model "$1" --engine onnxruntime --plugin study_methods --gallery 0 "${options[@]}"
