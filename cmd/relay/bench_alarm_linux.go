package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// newAlarm returns what waits until a time, with a timer of the kernel's own, until ctx
// ends or stop is called. Go's timers are late by up to a millisecond in a process that
// has nothing else to do, for its poller counts in milliseconds; that would stand in
// every latency that is counted from when a webhook was due.
func newAlarm(ctx context.Context) (wait func(at time.Time) error, stop func(), err error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("make a timer: %w", err)
	}
	timer := os.NewFile(uintptr(fd), "timer")
	conn, err := timer.SyscallConn()
	if err != nil {
		return nil, nil, fmt.Errorf("use a timer: %w", err)
	}
	unwatch := context.AfterFunc(ctx, func() { _ = timer.Close() }) // which ends a read
	wait = func(at time.Time) error {
		d := time.Until(at)
		if d <= 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		var fault error
		err := conn.Control(func(fd uintptr) {
			fault = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}, nil)
		})
		if err = cmp.Or(err, fault); err != nil {
			return fmt.Errorf("set a timer: %w", err)
		}
		var expirations [8]byte
		if _, err = timer.Read(expirations[:]); err != nil {
			return cmp.Or(ctx.Err(), err)
		}
		return nil
	}
	return wait, func() {
		if unwatch() {
			_ = timer.Close()
		}
	}, nil
}
