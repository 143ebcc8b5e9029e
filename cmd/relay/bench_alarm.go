//go:build !linux

package main

import (
	"context"
	"time"
)

// newAlarm returns what waits until a time, as well as Go's timers do.
func newAlarm(ctx context.Context) (wait func(at time.Time) error, stop func(), err error) {
	return func(at time.Time) error {
		pause(ctx, time.Until(at))
		return ctx.Err()
	}, func() {}, nil
}
