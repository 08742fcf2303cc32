#!/bin/sh
# serve.sh [MORE vllm serve ARGUMENTS] : serve a tiny model as "tiny" on 127.0.0.1. Env: DEST (where install.sh put it),
# PORT, MODEL (default DEST/model). A later argument overrides the same one here.
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 \
    VLLM_CPU_KVCACHE_SPACE="${VLLM_CPU_KVCACHE_SPACE:-1}" VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1
# nice 19 and no new session (setsid, start_new_session): the worker polls, and the kernel's autogroup would let it starve
# everything else on a 2-core machine. Stop with SIGTERM; after a SIGKILL also end its VLLM::EngineCore and VLLM::Worker.
exec nice -n 19 "${DEST:?}/bin/vllm" serve "${MODEL:-$DEST/model}" --served-model-name tiny --host 127.0.0.1 \
    --port "${PORT:?}" --max-model-len 2048 --dtype bfloat16 --enforce-eager --max-num-seqs 16 \
    --num-gpu-blocks-override 512 --enable-prompt-tokens-details "$@"
