package bench

import (
	"fmt"
	"slices"
)

// Limits are what loops that do nothing else reach on the machine, with as many threads as the engine uses.
type Limits struct {
	Path    string  `json:"path"`
	Threads int     `json:"threads"`
	Int8    float64 `json:"int8"` // operations a second; 0 if not known on this path
	F32     float64 `json:"f32"`  // operations a second; 0 if not known on this path
	Read    float64 `json:"read"` // bytes a second from memory
}

// String is the limits as one line.
func (l *Limits) String() string {
	if l.Int8 == 0 {
		return fmt.Sprintf("path %s, %d threads: memory %.1f GB/s; peak rates of arithmetic are not known on this path", l.Path, l.Threads, l.Read/1e9)
	}
	return fmt.Sprintf("path %s, %d threads: int8 %.0f GOPS, f32 %.0f GFLOPS, memory %.1f GB/s", l.Path, l.Threads, l.Int8/1e9, l.F32/1e9, l.Read/1e9)
}

// A Shape is what one token costs in a model.
type Shape struct {
	Int8Ops float64 // of the layers' quantised matrices, a token
	F32Ops  float64 // of the layers' other matrices, a token

	HeadInt8Ops, HeadF32Ops float64 // of the output matrix, once a prompt

	AttentionOps float64 // float32, for each pair of a token and one that it sees, over all layers and heads
	WeightBytes  float64 // of the layers and the output matrix, as the file has them
	KVBytes      float64 // of one token
}

// PrefillSeconds is the shortest time in which n tokens behind depth others can be computed: the operations of the matrices at their
// peak rate and those of attention at theirs.
func (s *Shape) PrefillSeconds(l *Limits, depth, n int) float64 {
	rows := float64(n)
	pairs := rows*float64(depth) + rows*(rows+1)/2
	return (s.Int8Ops*rows+s.HeadInt8Ops)/l.Int8 + (s.F32Ops*rows+s.HeadF32Ops+s.AttentionOps*pairs)/l.F32
}

// DecodeSeconds is the shortest time for a token behind depth others: all weights and their KV come from memory.
func (s *Shape) DecodeSeconds(l *Limits, depth float64) float64 {
	return (s.WeightBytes + depth*s.KVBytes) / l.Read
}

// Hold sets the engine's figures against the limits: its own prefill and decode times, which have no queue and transport in them. Where
// tokens come several a step, the weights are read once for all of them, and it is the steps that are held against the bandwidth.
func (r *Report) Hold(s *Shape, l *Limits) {
	r.Limits = l
	for _, m := range r.Results {
		for _, v := range m.Series {
			if len(v.Values) == 0 {
				continue
			}
			var limits []float64
			for i := range v.Values {
				prompt, cached := v.Prompt[i], max(0, v.Cached[i])
				switch m.Name {
				case EnginePrefill:
					if n := prompt - cached; n > 0 && l.Int8 > 0 {
						limits = append(limits, float64(n)/s.PrefillSeconds(l, cached, n))
					}
				case EngineDecode, EngineSteps:
					if m.Name == EngineDecode && slices.Contains(v.Notes, severalAtOnce) {
						continue
					}
					limits = append(limits, 1/s.DecodeSeconds(l, float64(prompt)+float64(r.Options.GenTokens)/2))
				}
			}
			if len(limits) > 0 {
				v.Limit = median(limits)
				v.Share = v.Median / v.Limit
			}
		}
	}
}
