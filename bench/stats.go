package main

import (
	"math"
	"slices"
)

// stats sums up repeated measurements of one thing. Medians, because a
// repetition that a neighbour disturbed should not move the figure.
type stats struct {
	N      int     `json:"n"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	MAD    float64 `json:"mad"` // median absolute deviation from the median
}

// summarize returns the zero stats for no values.
func summarize(values []float64) stats {
	if len(values) == 0 {
		return stats{}
	}
	median := percentile(values, 50)
	deviations := make([]float64, len(values))
	for i, v := range values {
		deviations[i] = math.Abs(v - median)
	}
	return stats{
		N: len(values), Median: median,
		Min: slices.Min(values), Max: slices.Max(values),
		MAD: percentile(deviations, 50),
	}
}

// percentile interpolates linearly between the two nearest values; p is from 0
// to 100. It returns NaN for no values and leaves values as they are.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := p / 100 * float64(len(sorted)-1)
	low := int(rank)
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (rank-float64(low))*(sorted[low+1]-sorted[low])
}
