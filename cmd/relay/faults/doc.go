// Package faults breaks everything around the relay, and the relay itself, while
// it works, and then compares what was acknowledged with what arrived. All of it
// is test code: nothing here is part of the program.
//
// # A run
//
// Three relay processes work on one real Redis, each through a proxy of its own
// (toxiproxy). An issuer, a push service and two downstream targets (package sim)
// verify whatever they get. Load comes at a fixed rate: events, challenges, and
// cardholders who decide, change their mind, decide on two nodes at once, or too
// late. The issuer sends again what was not answered with 200, as a real one does.
// Meanwhile three tracks of faults run side by side: one on Redis, one on the
// nodes and their network, one on the outside parties. Which, when and how long
// comes from a seed that is printed, so that a run can be repeated.
//
// # What is checked at the end
//
//  1. Every acknowledged event reached each target that wants it, or is a dead
//     letter with its attempts.
//  2. Every acknowledged challenge was pushed to each of its owner's devices
//     while it lived, unless it was decided before that could be.
//  3. Every acknowledged decision reached the issuer, always the same one under
//     one idempotency key; no challenge has two; none was taken after expiry.
//  4. Nothing is left: the whole key space holds only what retention allows.
//  5. The ingress never hung: each webhook had its answer in time.
//  6. No log of any node holds a secret.
//
// # Run it
//
//	go test ./cmd/relay/faults                                    # the short run
//	go test ./cmd/relay/faults -run TestFaults -v -timeout 30m -args -duration 10m -seed 7
//
// Non-goals: what a Redis without an append-only file, or with fsync everysec,
// loses when it is killed (see the README), and faults of the disk other than a
// full one.
package faults
