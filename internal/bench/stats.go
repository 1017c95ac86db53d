package bench

import "slices"

// quantile returns the value below which the share q of the values lies, between two of them in proportion (type 7 of Hyndman
// and Fan). v is not empty.
func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

func median(v []float64) float64 { return quantile(v, 0.5) }

func medianInt(v []int) int { return slices.Sorted(slices.Values(v))[len(v)/2] }
