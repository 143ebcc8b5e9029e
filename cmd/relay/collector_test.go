package main

import "testing"

func TestCollectorShare(t *testing.T) {
	t.Parallel()
	for lives, want := range map[uint64]int{1: 1000, 4 << 20: 800, 8 << 20: 400, 32 << 20: 100, 1 << 30: 100} {
		if got := collectorShare(lives); got != want {
			t.Errorf("of %d bytes: %d percent, want %d", lives, got, want)
		}
	}
}
