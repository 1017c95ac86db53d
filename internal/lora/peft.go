package lora

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"kvasir/internal/mmap"
)

// The files of a folder that PEFT's save_pretrained writes.
const (
	configName  = "adapter_config.json"
	weightsName = "adapter_model.safetensors"
	pickleName  = "adapter_model.bin"
)

const maxConfig = 1 << 20 // bytes of adapter_config.json

// config is what matters of adapter_config.json: LoraConfig of PEFT.
type config struct {
	Type        string          `json:"peft_type"`
	Alpha       *float64        `json:"lora_alpha"`
	RSLoRA      bool            `json:"use_rslora"` // alpha/√rank in place of alpha/rank
	DoRA        bool            `json:"use_dora"`
	QALoRA      bool            `json:"use_qalora"`
	FanInFanOut bool            `json:"fan_in_fan_out"`
	Bias        string          `json:"bias"`
	LoRABias    bool            `json:"lora_bias"`
	Alphas      map[string]any  `json:"alpha_pattern"`
	Save        []string        `json:"modules_to_save"`
	Tokens      json.RawMessage `json:"trainable_token_indices"`
	Replication []any           `json:"layer_replication"`
	Invocation  []any           `json:"alora_invocation_tokens"`
	Init        any             `json:"init_lora_weights"`
}

// readConfig refuses what would make the adapter something else than W + scale·B·A.
func readConfig(b []byte) (*config, error) {
	c := &config{Bias: "none"}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", configName, ErrFormat, err)
	}
	if c.Type != "LORA" {
		return nil, fmt.Errorf("%s: peft_type %q: %w; LORA is", configName, c.Type, ErrUnsupported)
	}
	if c.Alpha == nil {
		return nil, fmt.Errorf("%s has no lora_alpha: %w", configName, ErrFormat)
	}
	// Some initialisations change the base model, too.
	init, _ := c.Init.(string)
	init, _, _ = strings.Cut(strings.ToLower(init), "_")
	tokens := string(c.Tokens)
	for _, u := range []struct {
		key string
		is  bool
	}{
		{"use_dora", c.DoRA}, {"use_qalora", c.QALoRA}, {"fan_in_fan_out", c.FanInFanOut}, {"bias", c.Bias != "none"}, {"lora_bias", c.LoRABias},
		{"alpha_pattern", len(c.Alphas) > 0}, {"modules_to_save", len(c.Save) > 0}, {"trainable_token_indices", tokens != "" && tokens != "null"},
		{"layer_replication", len(c.Replication) > 0}, {"alora_invocation_tokens", len(c.Invocation) > 0},
		{"init_lora_weights " + init, slices.Contains([]string{"pissa", "olora", "corda", "loftq"}, init)},
	} {
		if u.is {
			return nil, fmt.Errorf("%s: %s: %w", configName, u.key, ErrUnsupported)
		}
	}
	return c, nil
}

// openFolder reads a folder of PEFT.
func openFolder(dir string) (*File, error) {
	b, err := readSmall(filepath.Join(dir, configName), maxConfig)
	if err != nil {
		return nil, err
	}
	c, err := readConfig(b)
	if err != nil {
		return nil, err
	}
	m, err := mmap.Open(filepath.Join(dir, weightsName))
	if errors.Is(err, fs.ErrNotExist) {
		if _, e := os.Stat(filepath.Join(dir, pickleName)); e == nil {
			return nil, fmt.Errorf("%s: %w, since reading it would run what is in it; save the adapter as %s", pickleName, ErrUnsupported, weightsName)
		}
	}
	if err != nil {
		return nil, err
	}
	f, err := fromPEFT(c, m.Data)
	if err != nil {
		m.Close()
		return nil, err
	}
	f.Size += int64(len(b))
	f.closers = append(f.closers, m)
	return f, nil
}

func readSmall(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s is longer than %d bytes: %w", path, most, ErrFormat)
	}
	return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), err
}

// module is a matrix of a layer as transformers name it, behind what models that see images put before.
var module = regexp.MustCompile(`^base_model\.model\.(?:model\.)?(?:language_model\.)?(?:model\.)?(?:layers\.([0-9]{1,4})\.([a-z_.0-9]+)|(lm_head))\.lora_(A|B)\.weight$`)

// ggufNames are llama.cpp's names of the matrices of a layer.
var ggufNames = map[string]string{
	"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output",
	"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
}

// fromPEFT reads the tensors of a safetensors file.
func fromPEFT(c *config, data []byte) (*File, error) {
	list, err := parseSafetensors(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", weightsName, err)
	}
	pairs := map[string]*Pair{}
	for _, t := range list {
		m := module.FindStringSubmatch(t.name)
		if m == nil {
			return nil, fmt.Errorf("%s: tensor %.200q: %w; lora_A.weight and lora_B.weight of a layer's matrices and of lm_head are", weightsName, t.name, ErrUnsupported)
		}
		base := "output.weight"
		if m[3] == "" {
			name, ok := ggufNames[m[2]]
			if !ok {
				return nil, fmt.Errorf("%s: the adapter changes %s: %w; attention, router and feed-forward matrices are, of experts none", weightsName, m[2], ErrUnsupported)
			}
			base = "blk." + m[1] + "." + name + ".weight"
		}
		if len(t.shape) != 2 {
			return nil, fmt.Errorf("%s: tensor %s has %d dimensions: %w", weightsName, t.name, len(t.shape), ErrFormat)
		}
		p := pairs[base]
		if p == nil {
			p = &Pair{Base: base}
			pairs[base] = p
		}
		x := &p.B
		if m[4] == "A" {
			x = &p.A
		}
		if x.Rows != 0 {
			return nil, fmt.Errorf("%s: two tensors are lora_%s of %s: %w", weightsName, m[4], base, ErrFormat)
		}
		*x = Tensor{Type: t.typ, Rows: t.shape[0], Cols: t.shape[1], Data: t.data}
	}
	f := &File{HF: true, Size: int64(len(data))}
	for _, p := range pairs {
		rank := float64(max(1, p.Rank()))
		if p.Scale = *c.Alpha / rank; c.RSLoRA {
			p.Scale = *c.Alpha / math.Sqrt(rank)
		}
		f.Pairs = append(f.Pairs, *p)
	}
	return f, f.check()
}
