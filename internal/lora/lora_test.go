package lora

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kvasir/internal/gguf"
)

// adapterFile is a GGUF adapter with other values of some keys, and a change.
func adapterFile(t testing.TB, keys map[string]any, change func(w *gguf.Writer)) []byte {
	t.Helper()
	w := gguf.NewWriter()
	w.SetString("general.architecture", "llama")
	for k, v := range map[string]string{"general.type": "adapter", "adapter.type": "lora"} {
		if other, ok := keys[k]; ok {
			v = other.(string)
		}
		w.SetString(k, v)
	}
	alpha, ok := keys["adapter.lora.alpha"].(float32)
	if !ok {
		alpha = 6
	}
	w.SetFloat32("adapter.lora.alpha", alpha)
	w.AddTensor("blk.0.attn_v.weight.lora_b", gguf.F16, []uint64{3, 32}, make([]byte, 2*3*32))
	w.AddTensor("blk.0.attn_v.weight.lora_a", gguf.F32, []uint64{64, 3}, make([]byte, 4*3*64))
	w.AddTensor("blk.0.attn_q.weight.lora_a", gguf.F32, []uint64{64}, make([]byte, 4*64)) // rank 1
	w.AddTensor("blk.0.attn_q.weight.lora_b", gguf.F32, []uint64{1, 96}, make([]byte, 4*96))
	if change != nil {
		change(w)
	}
	b, err := w.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGGUF(t *testing.T) {
	f, err := Parse(adapterFile(t, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if f.Arch != "llama" || f.HF || len(f.Pairs) != 2 {
		t.Fatalf("%+v", f)
	}
	q, v := f.Pairs[0], f.Pairs[1]
	if q.Base != "blk.0.attn_q.weight" || q.Rank() != 1 || q.Scale != 6 || q.A.Cols != 64 || q.B.Rows != 96 || q.B.Cols != 1 {
		t.Errorf("%+v", q)
	}
	if v.Base != "blk.0.attn_v.weight" || v.Rank() != 3 || v.Scale != 2 || v.B.Type != gguf.F16 || len(v.B.Data) != 192 {
		t.Errorf("%+v", v)
	}
	if want := uint64(4*32*64 + 4*96*32 + 4*32*64 + 2*32*32); f.Memory() != want {
		t.Errorf("memory %d, want %d", f.Memory(), want)
	}
	f, err = Parse(adapterFile(t, map[string]any{"adapter.lora.alpha": float32(0)}, nil))
	if err != nil || f.Pairs[1].Scale != 1 {
		t.Errorf("alpha 0: %v", err)
	}
}

func TestGGUFErrors(t *testing.T) {
	tensor := func(name string, dims ...uint64) func(*gguf.Writer) {
		n := uint64(4)
		for _, d := range dims {
			n *= d
		}
		return func(w *gguf.Writer) { w.AddTensor(name, gguf.F32, dims, make([]byte, n)) }
	}
	for _, c := range []struct {
		name   string
		keys   map[string]any
		change func(*gguf.Writer)
		is     error
		says   string
	}{
		{"a model", map[string]any{"general.type": "model"}, nil, ErrUnsupported, "general.type"},
		{"another adapter", map[string]any{"adapter.type": "ia3"}, nil, ErrUnsupported, "ia3"},
		{"invocation", nil, func(w *gguf.Writer) { w.SetInts("adapter.alora.invocation_tokens", []int32{1}) }, ErrUnsupported, "aLoRA"},
		{"one half", nil, tensor("blk.1.attn_q.weight.lora_a", 64, 2), ErrFormat, "one of A and B"},
		{"the other half", nil, tensor("blk.1.attn_q.weight.lora_b", 2, 64), ErrFormat, "one of A and B"},
		{"a norm", nil, tensor("blk.1.attn_norm.weight", 64), ErrUnsupported, "attn_norm"},
		{"experts", nil, tensor("blk.1.ffn_up_exps.weight.lora_a", 64, 2, 4), ErrUnsupported, "expert"},
		{"no fit", nil, func(w *gguf.Writer) {
			tensor("blk.1.attn_q.weight.lora_a", 64, 2)(w)
			tensor("blk.1.attn_q.weight.lora_b", 3, 64)(w)
		}, ErrFormat, "do not fit"},
		{"alpha", map[string]any{"adapter.lora.alpha": float32(math.NaN())}, nil, ErrFormat, "scale"},
	} {
		if f, err := Parse(adapterFile(t, c.keys, c.change)); f != nil && err == nil || !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	w := gguf.NewWriter()
	w.SetString("general.type", "adapter")
	b, err := w.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(b); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "adapter.type") {
		t.Errorf("without a type: %v", err)
	}
}

// safetensors makes a file of a header and so many bytes of data.
func safetensors(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

const prefix = "base_model.model.model.layers.3.self_attn.q_proj."

// entry is a tensor's description.
func entry(name, typ string, rows, cols, from, to int) string {
	return fmt.Sprintf(`"%s":{"dtype":"%s","shape":[%d,%d],"data_offsets":[%d,%d]}`, name, typ, rows, cols, from, to)
}

// goodHeader has a pair of rank 2 for a matrix of 8×16; its data has 160 bytes.
var goodHeader = `{"__metadata__":{"format":"pt"},` + entry(prefix+"lora_B.weight", "F32", 8, 2, 64, 128) + "," + entry(prefix+"lora_A.weight", "F16", 2, 16, 0, 64) + "}  "

const goodConfig = `{"peft_type":"LORA","r":2,"lora_alpha":6,"bias":"none","use_rslora":false,"modules_to_save":null,"alpha_pattern":{},"init_lora_weights":true}`

func write(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPEFT(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, configName, []byte(goodConfig))
	write(t, dir, weightsName, safetensors(goodHeader, 128))
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := f.Pairs[0]
	if !f.HF || f.Arch != "" || len(f.Pairs) != 1 || p.Base != "blk.3.attn_q.weight" || p.Scale != 3 || p.Rank() != 2 || p.A.Type != gguf.F16 || p.A.Cols != 16 || p.B.Rows != 8 {
		t.Errorf("%+v", f)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	write(t, dir, configName, []byte(strings.Replace(goodConfig, `"use_rslora":false`, `"use_rslora":true`, 1)))
	if f, err = Open(dir); err != nil || f.Pairs[0].Scale != 6/math.Sqrt2 {
		t.Errorf("%v, %+v", err, f)
	}
	f.Close()
	if list, err := Files(dir); err != nil || len(list) != 2 || filepath.Base(list[0]) != configName {
		t.Errorf("files %v, %v", list, err)
	}
	os.Remove(filepath.Join(dir, weightsName))
	write(t, dir, pickleName, []byte("pickle"))
	if _, err := Open(dir); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), pickleName) {
		t.Errorf("a pickle: %v", err)
	}
	os.Remove(filepath.Join(dir, configName))
	if _, err := Open(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestPEFTNames(t *testing.T) {
	for name, want := range map[string]string{
		"base_model.model.model.layers.0.mlp.down_proj":                   "blk.0.ffn_down.weight",
		"base_model.model.model.layers.12.self_attn.qkv_proj":             "blk.12.attn_qkv.weight",
		"base_model.model.model.language_model.layers.7.mlp.gate_proj":    "blk.7.ffn_gate.weight",
		"base_model.model.language_model.model.layers.7.self_attn.o_proj": "blk.7.attn_output.weight",
		"base_model.model.model.layers.7.mlp.gate":                        "blk.7.ffn_gate_inp.weight",
		"base_model.model.lm_head":                                        "output.weight",
		"base_model.model.model.layers.7.mlp.experts.3.up_proj":           "",
		"base_model.model.model.embed_tokens":                             "",
		"base_model.model.model.vision_tower.layers.7.self_attn.q_proj":   "",
		"base_model.model.model.layers.7.self_attn.q_proj.lora_A.other":   "",
		"model.layers.7.self_attn.q_proj":                                 "",
	} {
		c := &config{Alpha: new(float64)}
		f, err := fromPEFT(c, safetensors("{"+entry(name+".lora_A.weight", "F32", 1, 1, 0, 4)+","+entry(name+".lora_B.weight", "F32", 1, 1, 4, 8)+"}", 8))
		if want == "" {
			if !errors.Is(err, ErrUnsupported) {
				t.Errorf("%s: %v", name, err)
			}
		} else if err != nil || f.Pairs[0].Base != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

func TestPEFTConfigErrors(t *testing.T) {
	for change, is := range map[string]error{
		`"peft_type":"IA3"`: ErrUnsupported, `"use_dora":true`: ErrUnsupported, `"bias":"all"`: ErrUnsupported, `"lora_bias":true`: ErrUnsupported, `"fan_in_fan_out":true`: ErrUnsupported,
		`"alpha_pattern":{"q_proj":3}`: ErrUnsupported, `"modules_to_save":["lm_head"]`: ErrUnsupported, `"init_lora_weights":"pissa_niter_4"`: ErrUnsupported,
		`"trainable_token_indices":[1]`: ErrUnsupported, `"layer_replication":[[0,1]]`: ErrUnsupported, `"lora_alpha":null`: ErrFormat, `"lora_alpha":"x"`: ErrFormat, `"r":2}`: ErrFormat,
	} {
		if _, err := readConfig([]byte(goodConfig[:len(goodConfig)-1] + "," + change + "}")); !errors.Is(err, is) {
			t.Errorf("%s: %v", change, err)
		}
	}
	if _, err := readConfig([]byte(goodConfig)); err != nil {
		t.Error(err)
	}
}

func TestSafetensorsErrors(t *testing.T) {
	good := safetensors(goodHeader, 128)
	for n := range good {
		if _, err := parseSafetensors(good[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes are accepted", n, len(good))
		}
	}
	for _, c := range []struct {
		name   string
		header string
		data   int
	}{
		{"more data", goodHeader, 129},
		{"a gap", "{" + entry("a", "F32", 1, 1, 0, 4) + "," + entry("b", "F32", 1, 1, 8, 12) + "}", 12},
		{"an overlap", "{" + entry("a", "F32", 1, 2, 0, 8) + "," + entry("b", "F32", 1, 1, 4, 8) + "}", 8},
		{"a name twice", "{" + entry("a", "F32", 1, 1, 0, 4) + "," + entry("a", "F32", 1, 1, 4, 8) + "}", 8},
		{"another size", "{" + entry("a", "F32", 1, 2, 0, 4) + "}", 4},
		{"no values", "{" + entry("a", "F32", 0, 2, 0, 0) + "}", 0},
		{"an overflow", `{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0},
		{"offsets backwards", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 4},
		{"one offset", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[4]}}`, 4},
		{"a negative offset", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`, 4},
		{"integers", "{" + entry("a", "I64", 1, 1, 0, 8) + "}", 8},
		{"a list", "[]", 0},
		{"two objects", "{}{}", 0},
		{"spaces before", " {}", 0},
		{"not closed", "{", 0},
	} {
		if _, err := parseSafetensors(safetensors(c.header, c.data)); !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := parseSafetensors(binary.LittleEndian.AppendUint64(nil, math.MaxUint64)); !errors.Is(err, ErrFormat) {
		t.Errorf("a huge header: %v", err)
	}
}

// Whatever a safetensors file says, what is read lies inside it, without overlaps, and in the shapes that it names.
func FuzzSafetensors(f *testing.F) {
	f.Add(safetensors(goodHeader, 128))
	f.Add(safetensors("{}", 0))
	f.Add(safetensors("{"+entry("a", "BF16", 1, 1, 0, 2)+"}", 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseSafetensors(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		total := 0
		for _, x := range list {
			n := x.typ.BlockBytes()
			for _, s := range x.shape {
				n *= s
			}
			if len(x.data) != n {
				t.Fatalf("%v: %d bytes", x.shape, len(x.data))
			}
			total += n
		}
		if n := binary.LittleEndian.Uint64(b); uint64(total)+n+8 != uint64(len(b)) {
			t.Fatalf("tensors of %d bytes, a header of %d, a file of %d", total, n, len(b))
		}
		if p, err := fromPEFT(&config{Alpha: new(float64)}, b); err == nil {
			for i := range p.Pairs {
				if q := &p.Pairs[i]; q.A.Rows != q.B.Cols || q.Rank() < 1 || p.Memory() == 0 {
					t.Fatalf("%+v", q)
				}
			}
		}
	})
}

// Any GGUF file is an adapter with pairs that fit, or an error.
func FuzzGGUF(f *testing.F) {
	f.Add(adapterFile(f, nil, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, gguf.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		for i := range a.Pairs {
			p := &a.Pairs[i]
			for _, m := range []Tensor{p.A, p.B} {
				if m.Type.Known() && len(m.Data) != m.Rows*(m.Cols/m.Type.BlockLen()*m.Type.BlockBytes()) {
					t.Fatalf("%s: %d×%d in %d bytes", p.Base, m.Rows, m.Cols, len(m.Data))
				}
			}
			if p.A.Rows != p.B.Cols || p.Rank() < 1 || p.Rank() > maxRank {
				t.Fatalf("%+v", p)
			}
		}
	})
}
